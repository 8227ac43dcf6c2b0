//! The ids of rows: every lease names its own, so that the table's AUTO_INCREMENT counter is for the old
//! programs alone, and no row of theirs, or of another lease, is ever in the way.

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Schema, Service, Session, TABLE, World, age, tests, write};

tests![
    no_request_uses_up_an_id,
    the_first_lease_lifts_the_counter_above_all_ids_of_leases,
    a_refused_acquire_leaves_that_to_the_first_lease,
    an_id_that_another_row_has_is_left_alone,
    leases_stand_beside_a_young_counter,
];

/// The highest id of a lease in the production table.
const HIGHEST: u64 = 1 << 24;

fn id(schema: &Schema, session: &Session) -> u64 {
    let sql = format!("SELECT id_sessionX FROM {TABLE} WHERE {session}");
    schema.connect().query_first(sql).unwrap().unwrap()
}

/// Stores a row as an old program does; its id is the counter's next.
fn store(conn: &mut mysql::Conn, session: &Session) {
    let Session { device, prospect } = session;
    let columns = "id_prospect, id_device, timestamp";
    let values = format!("'{prospect}', '{device}', NOW()");
    let update = "ON DUPLICATE KEY UPDATE timestamp = VALUES(timestamp)";
    let sql = format!("INSERT INTO {TABLE} ({columns}) VALUES ({values}) {update}");
    write(conn, &sql);
}

/// The id that the counter gives next.
fn next_id(schema: &Schema) -> u64 {
    let session = Session::new();
    store(&mut schema.connect(), &session);
    id(schema, &session)
}

fn no_request_uses_up_an_id(world: &World) {
    let schema = world.own_table();
    let service = Service::start(&schema.url(), &[]);
    service.hold(&Session::new());
    let before = next_id(&schema);
    for _ in 0..20 {
        let session = Session::new();
        let stale = service.hold_for(&session, "m");
        service.acquire(&session, json!({})).assert_held();
        age(&mut schema.connect(), &session, 31);
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
    let schema = world.own_table();
    let service = Service::start(&schema.url(), &[]);
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
    store(&mut schema.connect(), &held);
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
    // Of the 31 ids that leases may have here, an old program has half.
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
    let count: Option<usize> = schema.connect().query_first(untouched).unwrap();
    assert_eq!(count, Some(old.len()));
}

fn leases_stand_beside_a_young_counter(world: &World) {
    let schema = world.own_table();
    let service = Service::start(&schema.url(), &[]);
    let leases: Vec<_> = (0..40)
        .map(|_| {
            let session = Session::new();
            let token = service.hold(&session);
            // Its row may be handed the id of any lease, and would overwrite that one.
            store(&mut schema.connect(), &Session::new());
            (session, token)
        })
        .collect();
    for (session, token) in leases {
        assert_eq!(service.release(&session, &token).status, 200);
    }
}
