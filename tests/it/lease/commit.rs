//! Commit, and a release that records a message.

use std::thread;

use mysql::prelude::Queryable;
use serde_json::{Value, json};

use crate::world::{Reply, Service, Session, TABLE, World, tests};

tests![
    a_commit_needs_a_live_lease,
    a_commit_can_be_repeated_even_after_its_lease_has_ended,
    a_message_is_committed_by_one_owner_token_only,
    several_messages_are_committed_under_one_lease,
    a_release_with_a_message_records_it,
    a_release_that_is_lost_records_nothing,
    a_result_is_given_back_byte_for_byte,
    a_commit_that_waits_for_the_row_sees_what_an_old_program_did_to_it,
    a_commit_that_waits_beyond_the_expiry_is_lost,
];

fn a_commit_needs_a_live_lease(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let other_token = "00000000000000004711";
    service.commit(&session, other_token, "m").assert_lost("committed");
    let token = service.hold(&session);
    service.commit(&session, other_token, "m").assert_lost("committed");
    world.age(&session, 31);
    service.commit(&session, &token, "m").assert_lost("committed");
    assert_eq!(service.acquire(&session, json!({})).status, 200);
    service.commit(&session, &token, "m").assert_lost("committed");
    assert_eq!(world.records(&session), 0);
    // An old program's row is not a lease.
    let legacy = Session::new();
    world.store(&legacy, "2099-01-01 00:00:00");
    service.commit(&legacy, other_token, "m").assert_lost("committed");
}

fn a_commit_can_be_repeated_even_after_its_lease_has_ended(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let token = service.hold_for(&session, "m");
    service.commit(&session, &token, "m").assert_committed("new");
    for end in [&|| (), &|| world.age(&session, 31), &|| {
        service.acquire_for(&session, "n").assert_granted("takeover");
    }] as [&dyn Fn(); 3]
    {
        end();
        service.commit(&session, &token, "m").assert_committed("again");
    }
    service.commit(&session, &token, "n").assert_lost("committed");
}

fn a_message_is_committed_by_one_owner_token_only(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let first = service.hold_for(&session, "m");
    world.age(&session, 31);
    let second = service.hold_for(&session, "m");
    let fields = json!({"owner_token": second, "message_id": "m", "result": "second"});
    service.post("/v1/commit", session.with(fields)).assert_committed("new");
    // Its lease is also lost, but `duplicate` says more.
    let duplicate = json!({"committed": false, "reason": "duplicate", "result": "second"});
    service.commit(&session, &first, "m").assert(409, &duplicate);
    assert_eq!(service.release(&session, &second).status, 200);
    let third = service.hold(&session);
    service.commit(&session, &third, "m").assert(409, &duplicate);
    service.commit(&session, &second, "m").assert_committed("again");
}

fn several_messages_are_committed_under_one_lease(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let token = service.hold_for(&session, "m1");
    for message_id in ["m1", "m2", "m3"] {
        service.commit(&session, &token, message_id).assert_committed("new");
    }
    assert_eq!(service.release(&session, &token).status, 200);
    for message_id in ["m1", "m2", "m3"] {
        service.acquire_for(&session, message_id).assert_duplicate(message_id);
    }
}

fn a_release_with_a_message_records_it(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let token = service.hold_for(&session, "m");
    let released = service.release_with(&session, &token, "m");
    released.assert(200, &json!({"released": true}));
    assert_eq!(world.stored(&session), None);
    let refused = service.acquire_for(&session, "m");
    refused.assert_duplicate("m");
    assert_eq!(refused.json["result"], json!(token));
    service.commit(&session, &token, "m").assert_committed("again");
    // A recorded message is not changed, whether or not the same token committed it.
    let later = service.hold(&session);
    assert_eq!(service.release_with(&session, &later, "m").status, 200);
    assert_eq!(world.stored(&session), None);
    let refused = service.acquire_for(&session, "m");
    assert_eq!(refused.json["result"], json!(token));
}

fn a_release_that_is_lost_records_nothing(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let token = service.hold_for(&session, "m");
    world.age(&session, 31);
    service.release_with(&session, &token, "m").assert_lost("released");
    let successor = service.hold_for(&session, "m");
    service.release_with(&session, &token, "m").assert_lost("released");
    assert_eq!(world.records(&session), 0);
    assert!(world.stored(&session).is_some(), "the successor's lease stands");
    assert_eq!(service.release(&session, &successor).status, 200);
    service.release_with(&session, &successor, "m").assert_lost("released");
    assert_eq!(world.records(&session), 0);
}

fn a_result_is_given_back_byte_for_byte(world: &World) {
    let service = &world.service;
    let longest = format!("\"{}\"", "é".repeat(255));
    assert_eq!(longest.len(), 512);
    for result in [
        "null",
        "true",
        "123456789012345678901234567890",
        "0.10000000000000000000000000000001",
        "\"\\u00e9 é '\\\\\\\" 😀\"",
        "{ \"b\" : [1, 2.0,\t3] , \"a\":{\"b\":{}}, \"b\": 1 }",
        "\"x'; DROP TABLE session_lock_message; --\"",
        &longest,
    ] {
        let session = Session::new();
        let token = service.hold(&session);
        let fields = session.with(json!({"owner_token": token, "message_id": "m"})).to_string();
        let body = format!("{},\"result\":{result}}}", fields.trim_end_matches('}'));
        let committed = service.post("/v1/commit", body);
        committed.assert_committed("new");
        let refused = service.acquire_for(&session, "m");
        let end = format!(",\"result\":{result}}}\n");
        assert!(refused.text.ends_with(&end), "{result}: {refused:?}");
    }
    let session = Session::new();
    let token = service.hold(&session);
    service.commit(&session, &token, "m");
    assert_eq!(service.acquire_for(&session, "m").json["result"], Value::Null);
}

/// Acquires the session for the message `m`, with the caller's own token.
pub fn hold_with_own_token(service: &Service, session: &Session) -> &'static str {
    let token = "00000000000000000042";
    let fields = json!({"message_id": "m", "owner_token": token});
    service.acquire(session, fields).assert_granted("new");
    token
}

/// Commits while another program has the row locked, and then changes it with this statement, in
/// which `t` is the table and `x` the session. Returns the answer.
fn commit_behind_row_lock(world: &World, meanwhile: &str) -> (Session, Reply) {
    for _ in 0..10 {
        // Each attempt has its own lease, because the previous one may have expired.
        let session = Session::new();
        let token = hold_with_own_token(&world.service, &session);
        let meanwhile = meanwhile.replace(" t ", &format!(" {TABLE} "));
        let meanwhile = meanwhile.replace("WHERE x", &format!("WHERE {session}"));
        let mut other_program = world.lock_row(&session);
        let (is_observed, reply) = thread::scope(|scope| {
            let committing = scope.spawn(|| world.service.commit(&session, token, "m"));
            let is_observed = world.observes_row_lock_wait(&session);
            other_program.query_drop(&meanwhile).unwrap();
            other_program.query_drop("COMMIT").unwrap();
            (is_observed, committing.join().unwrap())
        });
        // On a busy machine, the commit may give up before its wait is observed or before the lock
        // ends.
        if is_observed && reply.status != 503 {
            return (session, reply);
        }
    }
    panic!("no commit was observed to wait");
}

fn a_commit_that_waits_for_the_row_sees_what_an_old_program_did_to_it(world: &World) {
    for meanwhile in ["UPDATE t SET timestamp = NOW() WHERE x", "DELETE FROM t WHERE x"] {
        let (session, reply) = commit_behind_row_lock(world, meanwhile);
        reply.assert_lost("committed");
        assert_eq!(world.records(&session), 0);
    }
    let (_, reply) = commit_behind_row_lock(world, "DO 0");
    reply.assert_committed("new");
}

fn a_commit_that_waits_beyond_the_expiry_is_lost(world: &World) {
    let session = Session::new();
    let token = hold_with_own_token(&world.service, &session);
    world
        .expire_behind_row_lock(&session, |service| service.commit(&session, token, "m"))
        .assert_lost("committed");
    assert_eq!(world.records(&session), 0);
}
