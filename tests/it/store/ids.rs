//! The ids of rows: every lease names its own id, so only old programs use the AUTO_INCREMENT
//! counter, and no lease gets the id of another row.

use std::thread;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Schema, Service, Session, TABLE, World, old_program, tests};

tests![
    no_request_uses_up_an_id,
    the_first_lease_lifts_the_counter_above_all_ids_of_leases,
    a_refused_acquire_leaves_that_to_the_first_lease,
    an_id_that_another_row_has_is_left_alone,
    leases_stand_beside_a_young_counter,
    a_takeover_uses_no_id,
    an_exhausted_primary_key_touches_nobody_elses_row,
    a_row_with_a_negative_id_is_like_any_other,
];

/// The highest id of a lease in the production table.
const HIGHEST: u64 = 1 << 24;

fn id(schema: &Schema, session: &Session) -> u64 {
    let sql = format!("SELECT id_sessionX FROM {TABLE} WHERE {session}");
    schema.connect().query_first(sql).unwrap().unwrap()
}

/// Inserts a row as an old program does. Returns its id, which is from the counter.
fn next_id(schema: &Schema) -> u64 {
    let session = Session::new();
    old_program::upsert(&mut schema.connect(), &session, "NOW()");
    id(schema, &session)
}

fn no_request_uses_up_an_id(world: &World) {
    let (schema, service) = world.own_service(&[]);
    service.hold(&Session::new());
    let before = next_id(&schema);
    for _ in 0..20 {
        let session = Session::new();
        let stale = service.hold_for(&session, "m");
        service.acquire(&session, json!({})).assert_held();
        schema.age(&session, 31);
        let takeover = service.acquire(&session, json!({}));
        takeover.assert_granted("takeover");
        let token = takeover.text("owner_token");
        assert_eq!(service.renew(&session, &token, 30_000).status, 200);
        assert_eq!(service.release(&session, &stale).status, 409);
        assert_eq!(service.commit(&session, &token, "m").status, 200);
        assert_eq!(service.release(&session, &token).status, 200);
        let answered = service.acquire(&session, json!({"message_id": "m"}));
        assert_eq!(answered.json["reason"], "duplicate");
    }
    assert_eq!(next_id(&schema) - before, 1);
}

fn the_first_lease_lifts_the_counter_above_all_ids_of_leases(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let first = Session::new();
    service.hold(&first);
    assert_eq!(id(&schema, &first), HIGHEST);
    for _ in 0..10 {
        let session = Session::new();
        service.hold(&session);
        assert!(id(&schema, &session) <= HIGHEST);
    }
    assert_eq!(next_id(&schema), HIGHEST + 1);
}

fn a_refused_acquire_leaves_that_to_the_first_lease(world: &World) {
    let schema = world.own_table();
    let held = Session::new();
    old_program::upsert(&mut schema.connect(), &held, "NOW()");
    let service = Service::start(&schema.url(), &[]);
    service.acquire(&held, json!({})).assert_held();
    let first = Session::new();
    service.hold(&first);
    assert_eq!(id(&schema, &first), HIGHEST);
    assert_eq!(next_id(&schema), HIGHEST + 1);
}

fn an_id_that_another_row_has_is_left_alone(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!("ALTER TABLE {TABLE} MODIFY id_sessionX TINYINT AUTO_INCREMENT"));
    // An old program uses half of the 31 ids that leases may have here.
    let old: Vec<_> = (0..62)
        .map(|id| format!("({id}, 'p{id}', 'd', '2020-01-01')"))
        .skip(1)
        .step_by(2)
        .collect();
    schema.sql(&format!("INSERT INTO {TABLE} VALUES {}", old.join(",")));
    let service = Service::start(&schema.url(), &[]);
    for _ in 0..8 {
        let session = Session::new();
        let token = service.hold(&session);
        assert!(id(&schema, &session).is_multiple_of(2));
        service.acquire(&session, json!({})).assert_held();
        assert_eq!(service.release(&session, &token).status, 200);
    }
    let untouched = format!("SELECT COUNT(*) FROM {TABLE} WHERE timestamp = '2020-01-01'");
    assert_eq!(schema.rows::<usize>(&untouched), [old.len()]);
}

fn leases_stand_beside_a_young_counter(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let mut conn = schema.connect();
    let leases: Vec<_> = (0..40)
        .map(|_| {
            let session = Session::new();
            let token = service.hold(&session);
            // If the counter returned the id of a lease, this upsert would overwrite that lease.
            old_program::upsert(&mut conn, &Session::new(), "NOW()");
            (session, token)
        })
        .collect();
    for (session, token) in leases {
        assert_eq!(service.release(&session, &token).status, 200);
    }
}

fn a_takeover_uses_no_id(world: &World) {
    let session = Session::new();
    world.service.hold(&session);
    let key = || world.rows::<u64>(format!("SELECT id_sessionX FROM {TABLE} WHERE {session}"));
    let before = key();
    world.age(&session, 31);
    world.service.acquire(&session, json!({})).assert_granted("takeover");
    assert_eq!(key(), before);
}

fn an_exhausted_primary_key_touches_nobody_elses_row(world: &World) {
    const LAST_ID: u64 = 2_147_483_647;
    let (schema, service) = world.own_service(&[]);
    service.hold(&Session::new());
    schema.sql(&format!("ALTER TABLE {TABLE} AUTO_INCREMENT = {LAST_ID}"));
    let last = Session::new();
    schema.store(&last, "NOW() + INTERVAL 60 SECOND");
    let row = || -> (u64, String) {
        let sql = format!("SELECT id_sessionX, timestamp FROM {TABLE} WHERE {last}");
        schema.connect().query_first(sql).unwrap().unwrap()
    };
    let before = row();
    assert_eq!(before.0, LAST_ID, "the counter has nothing left");

    for _ in 0..5 {
        let session = Session::new();
        let owner_token = service.hold(&session);
        service.acquire(&session, json!({})).assert_held();
        assert_eq!(row(), before);
        assert_eq!(service.release(&session, &owner_token).status, 200);
    }
    service.acquire(&last, json!({})).assert_held();
    schema.age(&last, 91);
    let taken = service.acquire(&last, json!({}));
    taken.assert_granted("takeover");
    assert_eq!(row().0, LAST_ID);
    assert_eq!(service.release(&last, &taken.text("owner_token")).status, 200);

    // If no id is free, the answer is a 503 with the remedy, and never "held".
    let full = world.schema();
    full.sql(&format!(
        "CREATE TABLE {TABLE} (id_sessionX TINYINT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, \
         id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device))"
    ));
    let rows: Vec<_> =
        (1..=127).map(|id| format!("({id}, 'p{id}', 'd', '2099-01-01 00:00:00')")).collect();
    full.sql(&format!("INSERT INTO {TABLE} VALUES {}", rows.join(",")));
    let service = Service::start(&full.url(), &[]);
    let message = service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
    assert!(message.contains("no free id"), "{message}");
    let untouched = format!("SELECT COUNT(*) FROM {TABLE} WHERE timestamp = '2099-01-01 00:00:00'");
    assert_eq!(full.rows::<u64>(&untouched), [127]);
}

fn a_row_with_a_negative_id_is_like_any_other(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let sessions = [-7, i64::from(i32::MIN)].map(|id| {
        let session = Session::new();
        let Session { device, prospect } = &session;
        schema.sql(&format!(
            "INSERT INTO {TABLE} (id_sessionX, id_device, id_prospect, timestamp) VALUES ({id}, '{device}', '{prospect}', NOW())"
        ));
        session
    });
    assert_eq!(service.get("/v1/locks").json["locks"].as_array().unwrap().len(), 2);
    for session in &sessions {
        service.acquire(session, json!({})).assert_held();
        let granted = thread::scope(|scope| {
            let waiting = scope.spawn(|| service.acquire_waiting(session, 20_000));
            service.wait_for_waiters(session, 1);
            schema.age(session, 31);
            waiting.join().unwrap()
        });
        granted.assert_granted("takeover");
        let token = granted.text("owner_token");
        assert_eq!(service.renew(session, &token, 30_000).status, 200);
        assert_eq!(service.release(session, &token).status, 200);
    }
}
