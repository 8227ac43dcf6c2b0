//! The table's AUTO_INCREMENT ids: a new lease takes that of a row that is gone, and needs no look
//! first; whatever is in its way is found all the same.

use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::proxy::Proxy;
use crate::world::{Schema, Service, Session, TABLE, World, tests, write};

tests![
    the_id_of_a_row_that_is_gone_is_used_again,
    a_session_that_another_program_holds_is_refused_without_a_look_too,
    a_held_row_that_is_locked_is_refused_all_the_same,
    an_id_that_another_row_has_by_now_is_left_alone,
    a_stale_row_is_taken_over_without_a_look_too,
    a_refusal_gives_its_id_back,
    after_a_wrong_guess_sessions_are_looked_at_first,
    a_session_that_is_held_here_is_no_wrong_guess,
    only_ids_of_the_lowest_quarter_are_used_again,
    the_id_of_a_row_that_another_program_inserted_is_not_used_again,
];

/// Longer than an id rests before it is used again.
const REST: Duration = Duration::from_millis(500);

/// A service that has some ids to use again, and they have rested. What is done within a tenth of a
/// second from now on needs no look.
fn start_with_spare_ids(url: &str) -> Service {
    let service = Service::start(url, &["--workers", "1"]);
    let leases: Vec<_> = (0..8)
        .map(|_| {
            let session = Session::new();
            let owner_token = service.hold(&session);
            (session, owner_token)
        })
        .collect();
    for (session, owner_token) in leases {
        assert_eq!(service.release(&session, &owner_token).status, 200);
    }
    thread::sleep(REST);
    // A connection that was idle is not trusted without a look.
    for _ in 0..3 {
        service.get(&Session::new().path());
    }
    service
}

fn id(schema: &Schema, session: &Session) -> u64 {
    let sql = format!("SELECT id_sessionX FROM {TABLE} WHERE {session}");
    schema.connect().query_first(sql).unwrap().unwrap()
}

fn store(schema: &Schema, session: &Session, id: Option<u64>, timestamp: &str) {
    let Session { device, prospect } = session;
    let id = id.map_or("NULL".to_owned(), |id| id.to_string());
    let sql = format!("INSERT INTO {TABLE} VALUES ({id}, '{prospect}', '{device}', {timestamp})");
    write(&mut schema.connect(), &sql);
}

fn rows(schema: &Schema) -> Vec<(u64, String, String)> {
    let sql = format!("SELECT id_sessionX, id_prospect, timestamp FROM {TABLE} ORDER BY 1");
    schema.connect().query(sql).unwrap()
}

/// The id that the counter gives next.
fn next_id(schema: &Schema) -> u64 {
    let session = Session::new();
    store(schema, &session, None, "''");
    id(schema, &session)
}

fn the_id_of_a_row_that_is_gone_is_used_again(world: &World) {
    let schema = world.own_table();
    let service = start_with_spare_ids(&schema.url());
    let sessions = [(); 8].map(|()| Session::new());
    let owner_tokens = sessions.each_ref().map(|session| service.hold(session));
    let ids = sessions.each_ref().map(|session| id(&schema, session));
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
    // Not at once: the database has not cleared the row away yet.
    assert_eq!(service.release(&sessions[7], &owner_tokens[7]).status, 200);
    service.hold(&sessions[7]);
    assert_eq!(id(&schema, &sessions[7]), 9);
    assert_eq!(next_id(&schema), 10, "the counter has not moved otherwise");
}

fn a_session_that_another_program_holds_is_refused_without_a_look_too(world: &World) {
    let schema = world.own_table();
    let service = start_with_spare_ids(&schema.url());
    let session = Session::new();
    store(&schema, &session, None, "NOW()");
    let before = rows(&schema);
    service.acquire(&session, json!({})).assert_held();
    assert_eq!(rows(&schema), before);
}

fn a_held_row_that_is_locked_is_refused_all_the_same(world: &World) {
    let schema = world.own_table();
    let service = start_with_spare_ids(&schema.url());
    let session = Session::new();
    store(&schema, &session, None, "NOW()");
    let mut neighbour = schema.connect();
    write(&mut neighbour, "START TRANSACTION");
    let lock = format!("SELECT 1 FROM {TABLE} WHERE {session} FOR UPDATE");
    let _: Option<u8> = neighbour.query_first(lock).unwrap();
    service.acquire(&session, json!({})).assert_held();
}

fn an_id_that_another_row_has_by_now_is_left_alone(world: &World) {
    let schema = world.own_table();
    let service = start_with_spare_ids(&schema.url());
    let others: Vec<_> = (1..=8).map(|id| (id, Session::new())).collect();
    for (id, other) in &others {
        store(&schema, other, Some(*id), "'2020-01-01 00:00:00'");
    }
    let before = rows(&schema);
    for _ in 0..3 {
        service.hold(&Session::new());
    }
    let after: Vec<_> = rows(&schema);
    assert_eq!(after[..8], before);
    let ids: Vec<_> = after[8..].iter().map(|row| row.0).collect();
    assert_eq!(ids, [9, 10, 11]);
}

fn a_stale_row_is_taken_over_without_a_look_too(world: &World) {
    let schema = world.own_table();
    let service = start_with_spare_ids(&schema.url());
    let session = Session::new();
    store(&schema, &session, None, "NOW() - INTERVAL 40 SECOND");
    let before = id(&schema, &session);
    let reply = service.acquire(&session, json!({}));
    reply.assert_granted("takeover");
    assert_eq!(id(&schema, &session), before);
}

fn a_refusal_gives_its_id_back(world: &World) {
    let schema = world.own_table();
    let service = start_with_spare_ids(&schema.url());
    let held = Session::new();
    store(&schema, &held, None, "NOW()");
    for _ in 0..10 {
        service.acquire(&held, json!({})).assert_held();
    }
    thread::sleep(REST);
    let sessions = [(); 8].map(|()| Session::new());
    let ids = sessions.each_ref().map(|session| {
        service.hold(session);
        id(&schema, session)
    });
    assert!(ids.iter().all(|id| *id <= 8), "{ids:?}");
}

fn after_a_wrong_guess_sessions_are_looked_at_first(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let schema = world.own_table();
    let service = start_with_spare_ids(&proxy.url(&schema.name));
    let sessions = [(); 6].map(|()| Session::new());
    for session in &sessions {
        store(&schema, session, None, "NOW()");
    }
    // A look is one statement, a transaction several.
    let more_statements = sessions.map(|session| {
        let before = proxy.more_statements();
        service.acquire(&session, json!({})).assert_held();
        proxy.more_statements() - before
    });
    // The first may have looked, if the connection had been idle for too long again; and the pool may
    // open one meanwhile.
    let guess = more_statements.iter().position(|count| *count > 1);
    let after = &more_statements[guess.expect("a guess") + 1..];
    assert!(after.contains(&0), "{more_statements:?}");
}

fn a_session_that_is_held_here_is_no_wrong_guess(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = start_with_spare_ids(&proxy.url(&world.own_table().name));
    let round_trips = [(); 6].map(|()| {
        let before = proxy.sent();
        let session = Session::new();
        service.hold(&session);
        let took = proxy.sent() - before;
        service.acquire(&session, json!({})).assert_held();
        took
    });
    assert!(round_trips[1..].contains(&1), "{round_trips:?}");
}

fn only_ids_of_the_lowest_quarter_are_used_again(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!("ALTER TABLE {TABLE} AUTO_INCREMENT = 536870908"));
    let service = start_with_spare_ids(&schema.url());
    // Four of eight were below.
    let sessions = [(); 5].map(|()| Session::new());
    let ids = sessions.each_ref().map(|session| {
        service.hold(session);
        id(&schema, session)
    });
    assert!(ids[..4].iter().all(|id| *id <= 536_870_911), "{ids:?}");
    assert_eq!(ids[4], 536_870_916);
}

fn the_id_of_a_row_that_another_program_inserted_is_not_used_again(world: &World) {
    let schema = world.own_table();
    let service = start_with_spare_ids(&schema.url());
    let session = Session::new();
    store(&schema, &session, Some(100), "NOW() - INTERVAL 40 SECOND");
    let taken = service.acquire(&session, json!({}));
    taken.assert_granted("takeover");
    let owner_token = taken.text("owner_token");
    assert_eq!(service.release(&session, &owner_token).status, 200);
    thread::sleep(REST);
    let sessions = [(); 9].map(|()| Session::new());
    let ids = sessions.each_ref().map(|session| {
        service.hold(session);
        id(&schema, session)
    });
    assert!(
        !ids.contains(&100),
        "its program may know it still: {ids:?}"
    );
}
