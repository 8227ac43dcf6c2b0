//! Acquires for messages that are in progress or answered.

use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;

use super::commit::hold_with_own_token;
use crate::world::{MESSAGE_TABLE, Session, TABLE, World, eventually, tests};

tests![
    an_answered_message_is_a_duplicate,
    an_answered_message_is_a_duplicate_even_while_the_session_is_held,
    a_repeated_acquire_of_an_answered_message_leaves_its_lease_alone,
    a_lease_of_an_earlier_packet_on_the_connection_stays_when_its_message_is_answered,
    a_waiter_whose_message_is_answered_meanwhile_gets_no_lease,
    a_crowd_with_messages_is_answered_in_time,
    a_message_whose_worker_died_can_be_acquired_again,
    no_lease_is_granted_for_a_message_that_is_answered_while_its_acquire_waits,
];

fn an_answered_message_is_a_duplicate(world: &World) {
    let service = &world.service;
    let mut session = Session::new();
    session.device.push_str("Bot");
    let token = service.hold_for(&session, "wamid.A");
    let fields = json!({"owner_token": token, "message_id": "wamid.A", "result": {"reply": "r1"}});
    service.post("/v1/commit", session.with(fields)).assert_committed("new");
    assert_eq!(service.release(&session, &token).status, 200);
    world.sql(format!(
        "UPDATE {MESSAGE_TABLE} SET committed_us = committed_us - 5000000 WHERE {session}"
    ));
    let second = world.serve(&[]);
    for service in [service, &second] {
        let refused = service.acquire_for(&session, "wamid.A");
        refused.assert_duplicate("wamid.A");
        assert_eq!(refused.json["granted"], false);
        assert_eq!(refused.json["result"], json!({"reply": "r1"}));
        let ago_ms = refused.number("committed_ms_ago");
        assert!((5_000..60_000).contains(&ago_ms), "{refused:?}");
    }
    assert_eq!(world.stored(&session), None, "nothing is held for it");
    // For the lock table, another letter case is the same session.
    let uppercase = Session { device: session.device.to_uppercase(), ..session.clone() };
    service.acquire_for(&uppercase, "wamid.A").assert_duplicate("wamid.A");
    // A message id is compared exactly, and belongs to its session.
    let other = Session::new();
    for (session, message_id) in [
        (&session, "wamid.a"),
        (&session, "wamid.A "),
        (&session, " wamid.A"),
        (&session, "wamid.B"),
        (&other, "wamid.A"),
    ] {
        let token = service.hold_for(session, message_id);
        assert_eq!(service.release(session, &token).status, 200);
    }
    let token = service.hold(&session);
    assert_eq!(service.release(&session, &token).status, 200);
}

fn an_answered_message_is_a_duplicate_even_while_the_session_is_held(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let token = service.hold_for(&session, "m");
    service.acquire_for(&session, "m").assert_held();
    service.commit(&session, &token, "m").assert_committed("new");
    service.acquire_for(&session, "m").assert_duplicate("m");
    service.acquire_for(&session, "n").assert_held();
    // The message is also a duplicate for its own worker.
    let again = json!({"message_id": "m", "owner_token": token});
    service.acquire(&session, again).assert_duplicate("m");
    // The message is a duplicate even while other acquires wait.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| service.acquire(&session, json!({"wait_ms": 25_000})));
        service.wait_for_waiters(&session, 1);
        service.acquire_for(&session, "m").assert_duplicate("m");
        let again = json!({"message_id": "m", "owner_token": token});
        service.acquire(&session, again).assert_duplicate("m");
        service.acquire_for(&session, "n").assert_held();
        assert_eq!(service.release(&session, &token).status, 200);
        waiting.join().unwrap().assert_granted("new");
    });
}

fn a_repeated_acquire_of_an_answered_message_leaves_its_lease_alone(world: &World) {
    let second = world.serve(&[]);
    let session = Session::new();
    let token = hold_with_own_token(&world.service, &session);
    assert_eq!(world.service.commit(&session, token, "m").status, 200);
    let repeated = json!({"message_id": "m", "owner_token": token});
    // The second server does not know of the lease, and begins with a write.
    for service in [&world.service, &second] {
        let answer = service.acquire(&session, repeated.clone());
        answer.assert_duplicate("m");
        assert_eq!(service.renew(&session, token, 30_000).status, 200);
    }
}

fn a_lease_of_an_earlier_packet_on_the_connection_stays_when_its_message_is_answered(
    world: &World,
) {
    // It sends one request after the other on one connection, which knows its last fencing token.
    let service = world.serve(&["--workers", "1"]);
    let session = Session::new();
    let ttl = Duration::from_secs(3);
    let granted = service.acquire(&session, json!({"ttl_ms": 3_000}));
    let granted_at = Instant::now();
    let owner_token = granted.text("owner_token");
    assert_eq!(world.service.renew(&session, &owner_token, 30_000).status, 200);
    world.service.commit(&session, &owner_token, "m").assert_committed("new");
    let stored = world.stored(&session);
    // Until the expiry that this server knows, it would read before it writes.
    thread::sleep((granted_at + ttl).saturating_duration_since(Instant::now()));
    let fields = json!({"owner_token": owner_token, "message_id": "m"});
    service.acquire(&session, fields).assert_duplicate("m");
    assert_eq!(world.stored(&session), stored);
}

fn a_waiter_whose_message_is_answered_meanwhile_gets_no_lease(world: &World) {
    let service = &world.service;
    // The wait ends with a release, or when its time is over.
    for (wait_ms, release) in [(25_000, true), (3_000, false)] {
        let session = Session::new();
        let token = service.hold_for(&session, "m");
        thread::scope(|scope| {
            let fields = json!({"message_id": "m", "wait_ms": wait_ms});
            let first = scope.spawn(|| service.acquire(&session, fields));
            service.wait_for_waiters(&session, 1);
            let second = scope
                .spawn(|| service.acquire(&session, json!({"message_id": "n", "wait_ms": 25_000})));
            service.commit(&session, &token, "m").assert_committed("new");
            if release {
                assert_eq!(service.release(&session, &token).status, 200);
                first.join().unwrap().assert_duplicate("m");
            } else {
                first.join().unwrap().assert_duplicate("m");
                assert_eq!(service.release(&session, &token).status, 200);
            }
            second.join().unwrap().assert_granted("new");
        });
    }
}

fn a_crowd_with_messages_is_answered_in_time(world: &World) {
    let service = &world.service;
    for _ in 0..5 {
        let session = Session::new();
        let held = service.acquire(&session, json!({"ttl_ms": 600_000}));
        let token = held.text("owner_token");
        thread::scope(|scope| {
            // Half of the acquires do not wait, and the waits of the others end at once. The holder
            // renews.
            let asked: Vec<_> = (0..24)
                .map(|number| {
                    let session = &session;
                    let fields =
                        json!({"message_id": format!("m{number}"), "wait_ms": number % 2 * 100});
                    scope.spawn(move || service.acquire(session, fields))
                })
                .collect();
            for _ in 0..20 {
                assert_eq!(service.renew(&session, &token, 600_000).status, 200);
            }
            for asked in asked {
                asked.join().unwrap().assert_held();
            }
        });
        assert_eq!(service.release(&session, &token).status, 200);
    }
}

fn a_message_whose_worker_died_can_be_acquired_again(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let crashed = service.hold_for(&session, "m");
    service.acquire_for(&session, "m").assert_held();
    world.age(&session, 31);
    service.acquire_for(&session, "m").assert_granted("takeover");
    service.commit(&session, &crashed, "m").assert_lost("committed");
    assert_eq!(world.records(&session), 0);
}

fn no_lease_is_granted_for_a_message_that_is_answered_while_its_acquire_waits(world: &World) {
    // On MySQL, a request that waits for an uncommitted insert locks the adjacent index entries,
    // too.
    let world = &World::start(world.engine);
    for stored in [None, Some("garbage")] {
        // On a busy machine, this server's write may give up before the other server commits.
        eventually(
            || "an answer other than 503",
            || is_duplicate_after_a_commit_meanwhile(world, stored).then_some(()),
        );
    }
}

/// Acquires for a message while another server has the session's row, and commits that message.
/// Returns whether the answer was not a 503; it must then be `duplicate`.
fn is_duplicate_after_a_commit_meanwhile(world: &World, stored: Option<&str>) -> bool {
    let (service, session) = (&world.service, Session::new());
    let Session { device, prospect } = &session;
    let mut other_server = if let Some(stored) = stored {
        world.store(&session, stored);
        world.lock_row(&session)
    } else {
        world.insert_row(&session)
    };
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| service.acquire_for(&session, "m"));
        world.wait_for_write(&session);
        let record = format!(
            "INSERT INTO {MESSAGE_TABLE} (id_prospect, id_device, message_id, owner_token, committed_us, result) \
             VALUES (?, ?, 'm', '0', 1, 'true')"
        );
        other_server.exec_drop(record, (prospect, device)).unwrap();
        if stored.is_none() {
            let delete = format!("DELETE FROM {TABLE} WHERE {session}");
            other_server.query_drop(delete).unwrap();
        }
        other_server.query_drop("COMMIT").unwrap();
        asked.join().unwrap()
    });
    if answer.status == 503 {
        return false;
    }
    answer.assert_duplicate("m");
    assert_eq!(world.stored(&session).as_deref(), stored, "no lease is left");
    true
}
