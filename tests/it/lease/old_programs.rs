//! Old programs on the same table: their rows hold sessions, they read a lease's expiry correctly,
//! and each of their writes and deletes ends a lease.

use std::thread;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Session, TABLE, World, old_program, tests};

tests![
    an_old_row_holds_for_30_seconds,
    every_spelling_that_the_database_reads_as_a_date_holds,
    what_is_no_date_is_taken_over,
    a_date_in_the_future_holds_and_can_be_forced,
    an_old_programs_overwrite_ends_our_lease,
    an_old_programs_overwrite_with_garbage_frees_the_session,
    an_old_programs_delete_ends_our_lease,
    old_readers_see_the_true_expiry_and_never_an_earlier_one,
    an_old_program_takes_over_our_stale_row,
    an_overwrite_between_our_read_and_our_write_is_respected,
];

/// The statement with which a later version of the old program reads the age, in a transaction.
fn later_age_s(conn: &mut mysql::Conn, session: &Session) -> Option<i64> {
    conn.query_drop("START TRANSACTION").unwrap();
    let age_s = conn
        .query_first(format!(
            "SELECT TIMESTAMPDIFF(SECOND, STR_TO_DATE(timestamp, '%Y-%m-%d %H:%i:%s'), NOW()) \
             FROM {TABLE} WHERE {session} FOR UPDATE"
        ))
        .unwrap();
    conn.query_drop("COMMIT").unwrap();
    age_s
}

fn an_old_row_holds_for_30_seconds(world: &World) {
    let mut old = world.database.connect();
    let session = Session::new();
    old_program::upsert(&mut old, &session, "NOW()");
    let reply = world.service.acquire(&session, json!({}));
    reply.assert_held();
    assert!((1..=30_000).contains(&reply.number("remaining_ms")));
    let read = world.service.get(&session.path());
    assert_eq!((&read.json["held"], &read.json["legacy"]), (&json!(true), &json!(true)));
    assert!(read.json["fencing_token"].is_null() && read.json["held_ms"].is_null());
    old_program::upsert(&mut old, &session, "NOW() - INTERVAL 20 SECOND");
    world.service.acquire(&session, json!({})).assert_held();
    old_program::upsert(&mut old, &session, "NOW() - INTERVAL 30 SECOND");
    world.service.acquire(&session, json!({})).assert_granted("takeover");
}

fn every_spelling_that_the_database_reads_as_a_date_holds(world: &World) {
    for spelling in [
        "%Y-%m-%d %H:%i:%s",
        "%Y-%m-%dT%H:%i:%sZ",
        "%Y-%m-%d %H:%i:%s.%f",
        "%Y%m%d%H%i%s",
        "%y-%m-%d %H:%i:%s",
        "%Y/%m/%d %H:%i:%s",
        " %Y-%m-%d %H:%i:%s",
        "%Y-%m-%d %H:%i:%s ",
        "%Y-%m-%d %H:%i:%s UTC",
    ] {
        for (age_s, holds) in [(5, true), (31, false)] {
            let session = Session::new();
            old_program::upsert(
                &mut world.database.connect(),
                &session,
                &format!("DATE_FORMAT(NOW(6) - INTERVAL {age_s} SECOND, '{spelling}')"),
            );
            let age_s = old_program::age_s(&mut world.database.connect(), &session);
            let reply = world.service.acquire(&session, json!({}));
            if age_s.is_some() && holds {
                reply.assert_held();
            } else {
                reply.assert_granted("takeover");
            }
        }
    }
}

fn what_is_no_date_is_taken_over(world: &World) {
    for garbage in [
        "",
        " ",
        "garbage",
        "0",
        "null",
        "0000-00-00 00:00:00",
        "2025-00-00 00:00:00",
        "2025-13-01 00:00:00",
        "12:30:00",
        "1760432400",
        "1760432400123",
        "Mon Oct 14 2025",
        "😀",
        "2025-02-30 10:00:00",
        "'; DROP TABLE x",
    ] {
        let session = Session::new();
        world.store(&session, garbage);
        let age_s = old_program::age_s(&mut world.database.connect(), &session);
        assert!(
            age_s.is_none_or(|age_s| age_s >= 30),
            "{garbage:?} is a date to this database: {age_s:?}"
        );
        let reply = world.service.acquire(&session, json!({}));
        reply.assert_granted("takeover");
        assert_eq!(world.service.release(&session, &reply.text("owner_token")).status, 200);
        assert_eq!(world.stored(&session), None);
    }
}

fn a_date_in_the_future_holds_and_can_be_forced(world: &World) {
    for future in ["NOW() + INTERVAL 8 HOUR", "'9999-12-31 23:59:59'"] {
        let session = Session::new();
        old_program::upsert(&mut world.database.connect(), &session, future);
        let reply = world.service.acquire(&session, json!({}));
        reply.assert_held();
        assert!(reply.number("remaining_ms") > 8 * 3_600_000 - 60_000);
        assert_eq!(reply.retry_after_s, Some(30));
        let ids = format!("id_prospect=\"{}\"", session.prospect);
        world.service.wait_for_line(&format!("WARN  Session lock dated ahead of the database's clock, by a program in another time zone? {ids}"));
        let forced = world.service.force(&session, json!({}));
        assert_eq!(forced.status, 200);
        world.service.acquire(&session, json!({})).assert_granted("new");
    }
}

fn an_old_programs_overwrite_ends_our_lease(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    old_program::upsert(&mut world.database.connect(), &session, "NOW()");
    let stored = world.stored(&session);
    world.service.release(&session, &owner_token).assert_lost("released");
    assert_eq!(world.stored(&session), stored);
    world.service.acquire(&session, json!({"owner_token": owner_token})).assert_held();
}

fn an_old_programs_overwrite_with_garbage_frees_the_session(world: &World) {
    let session = Session::new();
    world.service.hold(&session);
    old_program::upsert(&mut world.database.connect(), &session, "''");
    world.service.acquire(&session, json!({})).assert_granted("takeover");
}

fn an_old_programs_delete_ends_our_lease(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    old_program::delete(&mut world.database.connect(), &session);
    world.service.release(&session, &owner_token).assert_lost("released");
    world.service.acquire(&session, json!({})).assert_granted("new");
}

fn old_readers_see_the_true_expiry_and_never_an_earlier_one(world: &World) {
    let mut old = world.database.connect();
    for ttl_ms in [1_000, 1_500, 30_000, 45_000, 600_000] {
        let session = Session::new();
        let granted_us =
            world.service.acquire(&session, json!({"ttl_ms": ttl_ms})).number("fencing_token");
        let mut reads_at = |after_us: u64| {
            // Both databases let a session set its own NOW().
            let (seconds, micros) =
                ((granted_us + after_us) / 1_000_000, (granted_us + after_us) % 1_000_000);
            old.query_drop(format!("SET timestamp = {seconds}.{micros:06}")).unwrap();
            let age_s = old_program::age_s(&mut old, &session);
            (age_s.unwrap(), later_age_s(&mut old, &session).unwrap())
        };
        let (check, later) = reads_at(ttl_ms * 1_000 - 1);
        assert!(check < 30 && later < 30, "held until the end of {ttl_ms} ms: {check} {later}");
        let (check, later) = reads_at(ttl_ms * 1_000 + 1_000_000);
        assert!(check >= 30 && later >= 30, "free a second after {ttl_ms} ms: {check} {later}");
        old.query_drop("SET timestamp = DEFAULT").unwrap();
    }
}

fn an_old_program_takes_over_our_stale_row(world: &World) {
    let mut old = world.database.connect();
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    world.age(&session, 31);
    let age_s = old_program::age_s(&mut old, &session);
    assert!(age_s.unwrap() >= 30);
    old_program::upsert(&mut old, &session, "NOW()");
    world.service.acquire(&session, json!({})).assert_held();
    assert_eq!(world.service.release(&session, &owner_token).status, 409);
    old_program::delete(&mut old, &session);
    assert_eq!(world.stored(&session), None);
}

fn an_overwrite_between_our_read_and_our_write_is_respected(world: &World) {
    // On MySQL, an upsert locks the adjacent index entries, too, until its transaction ends.
    let world = &World::start(world.engine);
    for request in ["acquire", "release"] {
        let session = Session::new();
        let owner_token = world.service.hold(&session);
        if request == "acquire" {
            world.age(&session, 31);
        }
        // The old program has not committed yet: the service's read does not see the row, and its
        // write waits.
        let mut old = world.database.connect();
        old.query_drop("START TRANSACTION").unwrap();
        old_program::upsert(&mut old, &session, "NOW()");
        thread::scope(|scope| {
            let asked = scope.spawn(|| match request {
                "acquire" => world.service.acquire(&session, json!({})),
                _ => world.service.release(&session, &owner_token),
            });
            world.wait_for_write(&session);
            old.query_drop("COMMIT").unwrap();
            assert_eq!(asked.join().unwrap().status, 409, "{request}");
        });
        assert!(
            world.stored(&session).unwrap().len() < 62,
            "the {request} left the old program's row alone"
        );
    }
}
