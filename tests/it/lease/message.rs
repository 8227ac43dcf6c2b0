//! One message, one reply: what is in progress, what is answered, and who may answer it.

use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::{Value, json};

use crate::world::{
    Reply, Schema, Service, Session, TABLE, World, age, eventually, migrate, run, tests,
};

tests![
    an_answered_message_is_a_duplicate,
    an_answered_message_is_a_duplicate_even_while_the_session_is_held,
    a_repeated_acquire_of_an_answered_message_leaves_its_lease_alone,
    a_waiter_whose_message_is_answered_meanwhile_gets_no_lease,
    a_crowd_with_messages_is_answered_in_time,
    a_message_whose_worker_died_can_be_acquired_again,
    a_commit_needs_a_live_lease,
    an_owner_token_is_good_for_its_own_session_only,
    a_commit_can_be_repeated_even_after_its_lease_has_ended,
    a_message_is_committed_by_one_owner_token_only,
    several_messages_are_committed_under_one_lease,
    a_release_with_a_message_records_it,
    a_release_that_is_lost_records_nothing,
    a_result_is_given_back_byte_for_byte,
    no_lease_is_granted_for_a_message_that_is_answered_while_its_acquire_waits,
    a_commit_that_waits_for_the_row_sees_what_an_old_program_did_to_it,
    a_commit_that_waits_beyond_the_expiry_is_lost,
    every_order_of_two_workers_steps_ends_as_it_must,
    every_wrong_field_of_a_message_is_refused_by_name,
    without_its_table_messages_are_refused_and_leases_work,
    a_message_table_that_compares_otherwise_is_refused,
    old_records_are_forgotten_and_young_ones_kept,
];

const MESSAGES: &str = "session_lock_message";

fn is_committed(how: &str) -> Value {
    json!({"committed": true, "how": how})
}

fn is_lost() -> Value {
    json!({"committed": false, "reason": "lost"})
}

fn acquire_for(service: &Service, session: &Session, message_id: &str) -> Reply {
    service.acquire(session, json!({"message_id": message_id}))
}

fn release_with(service: &Service, session: &Session, token: &str, message_id: &str) -> Reply {
    let fields = json!({"owner_token": token, "message_id": message_id, "result": token});
    service.post("/v1/release", session.with(fields))
}

#[track_caller]
fn assert_duplicate(reply: &Reply, message_id: &str) {
    assert_eq!(reply.status, 409, "{reply:?}");
    assert_eq!(
        (&reply.json["reason"], &reply.json["message_id"]),
        (&json!("duplicate"), &json!(message_id)),
        "{reply:?}"
    );
    assert_eq!(reply.retry_after_s, None, "asking again is of no use");
}

fn records(world: &World, session: &Session) -> u64 {
    let sql = format!("SELECT COUNT(*) FROM {MESSAGES} WHERE {session}");
    world.rows(sql)[0]
}

fn an_answered_message_is_a_duplicate(world: &World) {
    let service = &world.service;
    let mut session = Session::new();
    session.device.push_str("Bot");
    let token = service.hold_for(&session, "wamid.A");
    let fields = json!({"owner_token": token, "message_id": "wamid.A", "result": {"reply": "r1"}});
    service.post("/v1/commit", session.with(fields)).assert(200, &is_committed("new"));
    assert_eq!(service.release(&session, &token).status, 200);
    world.sql(format!(
        "UPDATE {MESSAGES} SET committed_us = committed_us - 5000000 WHERE {session}"
    ));
    let second = world.serve(&[]);
    for service in [service, &second] {
        let refused = acquire_for(service, &session, "wamid.A");
        assert_duplicate(&refused, "wamid.A");
        assert_eq!(refused.json["granted"], false);
        assert_eq!(refused.json["result"], json!({"reply": "r1"}));
        let ago_ms = refused.number("committed_ms_ago");
        assert!((5_000..60_000).contains(&ago_ms), "{refused:?}");
    }
    assert_eq!(world.stored(&session), None, "nothing is held for it");
    // The session in another letter case is the same to the lock table.
    let shouted = Session { device: session.device.to_uppercase(), ..session.clone() };
    assert_duplicate(&acquire_for(service, &shouted, "wamid.A"), "wamid.A");
    // A message is compared exactly, and belongs to its session.
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
    acquire_for(service, &session, "m").assert_held();
    service.commit(&session, &token, "m").assert(200, &is_committed("new"));
    assert_duplicate(&acquire_for(service, &session, "m"), "m");
    acquire_for(service, &session, "n").assert_held();
    // Its own worker has nothing left to do for it either.
    let again = json!({"message_id": "m", "owner_token": token});
    assert_duplicate(&service.acquire(&session, again), "m");
    // Behind others in line, it is a duplicate all the same.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| service.acquire(&session, json!({"wait_ms": 25_000})));
        service.wait_for_waiters(&session, 1);
        assert_duplicate(&acquire_for(service, &session, "m"), "m");
        let again = json!({"message_id": "m", "owner_token": token});
        assert_duplicate(&service.acquire(&session, again), "m");
        acquire_for(service, &session, "n").assert_held();
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
    // The second server has not heard of the lease, and begins with a write.
    for service in [&world.service, &second] {
        let answer = service.acquire(&session, repeated.clone());
        assert_duplicate(&answer, "m");
        assert_eq!(service.renew(&session, token, 30_000).status, 200);
    }
}

fn a_waiter_whose_message_is_answered_meanwhile_gets_no_lease(world: &World) {
    let service = &world.service;
    // Its turn comes by a release; its wait ends first.
    for (wait_ms, release) in [(25_000, true), (3_000, false)] {
        let session = Session::new();
        let token = service.hold_for(&session, "m");
        thread::scope(|scope| {
            let fields = json!({"message_id": "m", "wait_ms": wait_ms});
            let first = scope.spawn(|| service.acquire(&session, fields));
            service.wait_for_waiters(&session, 1);
            let second = scope
                .spawn(|| service.acquire(&session, json!({"message_id": "n", "wait_ms": 25_000})));
            service.commit(&session, &token, "m").assert(200, &is_committed("new"));
            if release {
                assert_eq!(service.release(&session, &token).status, 200);
                assert_duplicate(&first.join().unwrap(), "m");
            } else {
                assert_duplicate(&first.join().unwrap(), "m");
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
            // Some do not wait, some stop waiting all at once, and meanwhile the holder renews.
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
    let dead = service.hold_for(&session, "m");
    acquire_for(service, &session, "m").assert_held();
    world.age(&session, 31);
    acquire_for(service, &session, "m").assert_granted("takeover");
    service.commit(&session, &dead, "m").assert(409, &is_lost());
    assert_eq!(records(world, &session), 0);
}

fn a_commit_needs_a_live_lease(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let stranger = "00000000000000004711";
    service.commit(&session, stranger, "m").assert(409, &is_lost());
    let token = service.hold(&session);
    service.commit(&session, stranger, "m").assert(409, &is_lost());
    world.age(&session, 31);
    service.commit(&session, &token, "m").assert(409, &is_lost());
    assert_eq!(service.acquire(&session, json!({})).status, 200);
    service.commit(&session, &token, "m").assert(409, &is_lost());
    assert_eq!(records(world, &session), 0);
    // An old program's row is nobody's lease.
    let legacy = Session::new();
    let old = "2099-01-01 00:00:00";
    world.store(&legacy, old);
    service.commit(&legacy, stranger, "m").assert(409, &is_lost());
}

fn an_owner_token_is_good_for_its_own_session_only(world: &World) {
    let service = &world.service;
    let other = Session::new();
    for request in ["renew", "commit", "release", "release with message"] {
        let session = Session::new();
        let token = service.hold(&session);
        let stored = world.stored(&session);
        let reply = match request {
            "renew" => service.renew(&other, &token, 60_000),
            "commit" => service.commit(&other, &token, "m"),
            "release" => service.release(&other, &token),
            _ => release_with(service, &other, &token, "m"),
        };
        assert_eq!((reply.status, &reply.json["reason"]), (409, &json!("lost")));
        assert_eq!(world.stored(&session), stored, "after a {request} of another");
        assert_eq!(service.release(&session, &token).status, 200);
    }
    assert_eq!(records(world, &other), 0);
}

fn a_commit_can_be_repeated_even_after_its_lease_has_ended(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let token = service.hold_for(&session, "m");
    service.commit(&session, &token, "m").assert(200, &is_committed("new"));
    for end in [&|| (), &|| world.age(&session, 31), &|| {
        acquire_for(service, &session, "n").assert_granted("takeover");
    }] as [&dyn Fn(); 3]
    {
        end();
        service.commit(&session, &token, "m").assert(200, &is_committed("again"));
    }
    service.commit(&session, &token, "n").assert(409, &is_lost());
}

fn a_message_is_committed_by_one_owner_token_only(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let first = service.hold_for(&session, "m");
    world.age(&session, 31);
    let second = service.hold_for(&session, "m");
    let fields = json!({"owner_token": second, "message_id": "m", "result": "second"});
    service.post("/v1/commit", session.with(fields)).assert(200, &is_committed("new"));
    // Late, and a duplicate: it is told the latter.
    let duplicate = json!({"committed": false, "reason": "duplicate", "result": "second"});
    service.commit(&session, &first, "m").assert(409, &duplicate);
    assert_eq!(service.release(&session, &second).status, 200);
    let third = service.hold(&session);
    service.commit(&session, &third, "m").assert(409, &duplicate);
    service.commit(&session, &second, "m").assert(200, &is_committed("again"));
}

fn several_messages_are_committed_under_one_lease(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let token = service.hold_for(&session, "m1");
    for message_id in ["m1", "m2", "m3"] {
        service.commit(&session, &token, message_id).assert(200, &is_committed("new"));
    }
    assert_eq!(service.release(&session, &token).status, 200);
    for message_id in ["m1", "m2", "m3"] {
        assert_duplicate(&acquire_for(service, &session, message_id), message_id);
    }
}

fn a_release_with_a_message_records_it(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let token = service.hold_for(&session, "m");
    let released = release_with(service, &session, &token, "m");
    released.assert(200, &json!({"released": true}));
    assert_eq!(world.stored(&session), None);
    let refused = acquire_for(service, &session, "m");
    assert_duplicate(&refused, "m");
    assert_eq!(refused.json["result"], json!(token));
    service.commit(&session, &token, "m").assert(200, &is_committed("again"));
    // One that is recorded stays as it is, whoever did it.
    let later = service.hold(&session);
    assert_eq!(release_with(service, &session, &later, "m").status, 200);
    assert_eq!(world.stored(&session), None);
    let refused = acquire_for(service, &session, "m");
    assert_eq!(refused.json["result"], json!(token));
}

fn a_release_that_is_lost_records_nothing(world: &World) {
    let (service, session) = (&world.service, Session::new());
    let lost = json!({"released": false, "reason": "lost"});
    let token = service.hold_for(&session, "m");
    world.age(&session, 31);
    release_with(service, &session, &token, "m").assert(409, &lost);
    let heir = service.hold_for(&session, "m");
    release_with(service, &session, &token, "m").assert(409, &lost);
    assert_eq!(records(world, &session), 0);
    assert!(world.stored(&session).is_some(), "the heir's lease stands");
    assert_eq!(service.release(&session, &heir).status, 200);
    release_with(service, &session, &heir, "m").assert(409, &lost);
    assert_eq!(records(world, &session), 0);
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
        committed.assert(200, &is_committed("new"));
        let refused = acquire_for(service, &session, "m");
        let end = format!(",\"result\":{result}}}\n");
        assert!(refused.text.ends_with(&end), "{result}: {refused:?}");
    }
    let session = Session::new();
    let token = service.hold(&session);
    service.commit(&session, &token, "m");
    assert_eq!(acquire_for(service, &session, "m").json["result"], Value::Null);
}

fn no_lease_is_granted_for_a_message_that_is_answered_while_its_acquire_waits(world: &World) {
    // Whoever waits for a row that is being inserted locks its neighbours in MySQL's index too.
    let world = &World::start(world.engine);
    for stored in [None, Some("garbage")] {
        // Where the machine stalls, our write gives up before the other worker is through.
        eventually(
            || "an answer in time".to_owned(),
            || is_duplicate_after_a_commit_while_its_acquire_waits(world, stored).then_some(()),
        );
    }
}

/// Whether there was an answer in time, which is `duplicate` then.
fn is_duplicate_after_a_commit_while_its_acquire_waits(
    world: &World,
    stored: Option<&str>,
) -> bool {
    let (service, session) = (&world.service, Session::new());
    let Session { device, prospect } = &session;
    // Another server's worker has the session's row between our look and our write, and commits
    // our message.
    let mut other = if let Some(stored) = stored {
        world.store(&session, stored);
        world.lock_row(&session)
    } else {
        world.insert_row(&session)
    };
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| acquire_for(service, &session, "m"));
        world.wait_for_write(&session);
        let record = format!(
            "INSERT INTO {MESSAGES} (id_prospect, id_device, message_id, owner_token, committed_us, result) \
             VALUES (?, ?, 'm', '0', 1, 'true')"
        );
        other.exec_drop(record, (prospect, device)).unwrap();
        if stored.is_none() {
            let delete = format!("DELETE FROM {TABLE} WHERE {session}");
            other.query_drop(delete).unwrap();
        }
        other.query_drop("COMMIT").unwrap();
        asked.join().unwrap()
    });
    if answer.status == 503 {
        return false;
    }
    assert_duplicate(&answer, "m");
    assert_eq!(world.stored(&session).as_deref(), stored, "no lease is left");
    true
}

/// Holds the session for the message `m`, with a token of the caller's own.
fn hold_with_own_token(service: &Service, session: &Session) -> &'static str {
    let token = "00000000000000000042";
    let fields = json!({"message_id": "m", "owner_token": token});
    service.acquire(session, fields).assert_granted("new");
    token
}

/// What is answered to a commit that is seen to wait for its row, to which another program does this
/// meanwhile, with `t` for the table and `x` for the session.
fn commit_behind(world: &World, meanwhile: &str) -> (Session, Reply) {
    for _ in 0..10 {
        // Each try has a lease of its own: one that was refused before may have expired since.
        let session = Session::new();
        let token = hold_with_own_token(&world.service, &session);
        let meanwhile = meanwhile.replace(" t ", &format!(" {TABLE} "));
        let meanwhile = meanwhile.replace("WHERE x", &format!("WHERE {session}"));
        let mut neighbour = world.lock_row(&session);
        let (is_seen, reply) = thread::scope(|scope| {
            let committing = scope.spawn(|| world.service.commit(&session, token, "m"));
            let is_seen = world.sees_row_lock(&session);
            neighbour.query_drop(&meanwhile).unwrap();
            neighbour.query_drop("COMMIT").unwrap();
            (is_seen, committing.join().unwrap())
        });
        // On a busy machine it may have given up before it is seen, or before the lock was gone.
        if is_seen && reply.status != 503 {
            return (session, reply);
        }
    }
    panic!("no commit was seen to wait");
}

fn a_commit_that_waits_for_the_row_sees_what_an_old_program_did_to_it(world: &World) {
    for meanwhile in ["UPDATE t SET timestamp = NOW() WHERE x", "DELETE FROM t WHERE x"] {
        let (session, reply) = commit_behind(world, meanwhile);
        reply.assert(409, &is_lost());
        assert_eq!(records(world, &session), 0);
    }
    let (_, reply) = commit_behind(world, "DO 0");
    reply.assert(200, &is_committed("new"));
}

fn a_commit_that_waits_beyond_the_expiry_is_lost(world: &World) {
    let session = Session::new();
    let token = hold_with_own_token(&world.service, &session);
    world
        .expire_behind_a_lock(&session, |service| service.commit(&session, token, "m"))
        .assert(409, &is_lost());
    assert_eq!(records(world, &session), 0);
}

/// What a worker does next, or what happens to the lease.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Acquire,
    Commit,
    Release,
    ReleaseWithMessage,
    Expire,
}

/// What must come of each step: the contract in a few lines.
#[derive(Default)]
struct Model {
    holder: Option<(usize, bool)>,
    answered_by: Option<usize>,
}

impl Model {
    fn take(&mut self, worker: usize, step: Step) -> &'static str {
        let holds = self.holder == Some((worker, true));
        match (step, self.answered_by, self.holder) {
            (Step::Expire, _, holder) => {
                self.holder = holder.map(|(worker, _)| (worker, false));
                ""
            }
            (Step::Acquire, None, Some((_, true))) if holds => "again",
            (Step::Acquire, None, Some((_, true))) => "held",
            (Step::Acquire, None, holder) => {
                self.holder = Some((worker, true));
                holder.map_or("new", |_| "takeover")
            }
            (Step::Commit, Some(by), _) if by == worker => "again",
            (Step::Acquire | Step::Commit, Some(_), _) => "duplicate",
            (Step::Commit, None, _) if holds => {
                self.answered_by = Some(worker);
                "new"
            }
            (Step::Release | Step::ReleaseWithMessage, answered_by, _) if holds => {
                self.holder = None;
                if step == Step::ReleaseWithMessage {
                    self.answered_by = answered_by.or(Some(worker));
                }
                "released"
            }
            (Step::Commit | Step::Release | Step::ReleaseWithMessage, ..) => "lost",
        }
    }
}

/// All orders of what these do, each keeping to its own order.
fn orders(scripts: &[&[Step]]) -> Vec<Vec<(usize, Step)>> {
    let firsts = (0..scripts.len()).filter(|number| !scripts[*number].is_empty());
    let all: Vec<_> = firsts
        .flat_map(|number| {
            let mut rest = scripts.to_vec();
            let (first, others) = rest[number].split_first().unwrap();
            rest[number] = others;
            let continued = orders(&rest).into_iter();
            continued.map(|order| [vec![(number, *first)], order].concat()).collect::<Vec<_>>()
        })
        .collect();
    if all.is_empty() { vec![Vec::new()] } else { all }
}

fn every_order_of_two_workers_steps_ends_as_it_must(world: &World) {
    const COMMITS: &[Step] = &[Step::Acquire, Step::Commit, Step::Release];
    const RELEASES: &[Step] = &[Step::Acquire, Step::ReleaseWithMessage];
    const TOKENS: [&str; 2] = ["00000000000000000001", "00000000000000000002"];
    let mut conn = world.database.connect();
    let mut count = 0;
    for scripts in [[COMMITS, COMMITS], [COMMITS, RELEASES], [RELEASES, RELEASES]] {
        for order in orders(&[scripts[0], scripts[1], &[Step::Expire]]) {
            count += 1;
            let (session, mut model) = (Session::new(), Model::default());
            for (at, (worker, step)) in order.iter().enumerate() {
                let expected = model.take(*worker, *step);
                let token = || TOKENS[*worker];
                let fields = |fields: Value| session.with(fields);
                let reply = match step {
                    Step::Expire => {
                        if model.holder.is_some() {
                            age(&mut conn, &session, 40);
                        }
                        continue;
                    }
                    Step::Acquire => world.service.post(
                        "/v1/acquire",
                        fields(json!({"owner_token": token(), "message_id": "m"})),
                    ),
                    Step::Commit => world.service.commit(&session, token(), "m"),
                    Step::Release => world.service.release(&session, token()),
                    Step::ReleaseWithMessage => {
                        release_with(&world.service, &session, token(), "m")
                    }
                };
                let told = match (&reply.json["how"], &reply.json["reason"]) {
                    (Value::String(how), _) => how,
                    (_, Value::String(reason)) => reason,
                    _ => "released",
                };
                assert_eq!(told, expected, "step {at} of {order:?}: {reply:?}");
                assert_eq!(reply.status == 200, !["held", "lost", "duplicate"].contains(&told));
            }
        }
    }
    assert_eq!(count, 140 + 60 + 30);
}

fn every_wrong_field_of_a_message_is_refused_by_name(world: &World) {
    let token = "48210000000000000007";
    let (acquire, commit, release) = ("/v1/acquire", "/v1/commit", "/v1/release");
    let owned = |mut fields: Value| {
        fields["owner_token"] = json!(token);
        fields
    };
    let mut cases = vec![
        ("result", acquire, json!({"message_id": "m", "result": {}})),
        ("message_id", commit, owned(json!({}))),
        ("owner_token", commit, json!({"message_id": "m"})),
        ("ttl_ms", commit, owned(json!({"message_id": "m", "ttl_ms": 30_000}))),
        ("result", commit, owned(json!({"message_id": "m", "result": "x".repeat(511)}))),
        ("result", release, owned(json!({"result": "r"}))),
        ("message_id", release, json!({"force": true, "message_id": "m"})),
        ("message_id", "/v1/renew", owned(json!({"message_id": "m"}))),
    ];
    for wrong in
        [json!(""), json!("x".repeat(256)), json!("é"), json!("a\n"), json!(7), json!(null)]
    {
        for path in [acquire, commit, release] {
            let mut fields = owned(json!({"message_id": wrong}));
            if path == acquire {
                fields["ttl_ms"] = json!(30_000);
            }
            cases.push(("message_id", path, fields));
        }
    }
    for (field, path, fields) in cases {
        let session = Session::new();
        let reply = world.service.post(path, session.with(fields.clone()));
        let message = reply.assert_refused(400, "invalid_request");
        assert!(message.contains(field), "{path} {fields}: {message}");
        assert_eq!(world.stored(&session), None);
    }
}

fn with_lock_table_only(world: &World) -> Schema<'_> {
    let schema = world.own_table();
    schema.sql(&format!("DROP TABLE {MESSAGES}"));
    schema
}

fn without_its_table_messages_are_refused_and_leases_work(world: &World) {
    let schema = with_lock_table_only(world);
    let service = Service::start(&schema.url(), &[]);
    service.wait_for_line("WARN  messages");
    let session = Session::new();
    let token = service.hold(&session);
    let commit = json!({"owner_token": token, "message_id": "m"});
    for (path, fields) in [
        ("/v1/acquire", json!({"message_id": "m"})),
        ("/v1/commit", commit.clone()),
        ("/v1/release", commit),
    ] {
        let message =
            service.post(path, session.with(fields)).assert_refused(400, "invalid_request");
        assert!(message.contains("session-lock migrate"), "{message}");
    }
    assert_eq!(service.renew(&session, &token, 30_000).status, 200);
    assert_eq!(service.release(&session, &token).status, 200);
    let checked = run(&["check", "--database-url", &schema.url()]);
    assert_eq!(checked.status, Some(0));
    assert!(checked.out.contains("warning  messages"), "{checked:?}");
    // It is noticed when the table is there, however long it was not.
    thread::sleep(Duration::from_millis(1_100));
    migrate(&schema.url());
    let granted = eventually(
        || "messages are taken",
        || Some(acquire_for(&service, &session, "m")).filter(|reply| reply.status != 400),
    );
    granted.assert_granted("new");
}

fn a_message_table_that_compares_otherwise_is_refused(world: &World) {
    for change in [
        "MODIFY id_device VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
        "DROP PRIMARY KEY",
        "DROP COLUMN result",
    ] {
        let schema = with_lock_table_only(world);
        migrate(&schema.url());
        schema.sql(&format!("ALTER TABLE {MESSAGES} {change}"));
        let service = Service::start(&schema.url(), &[]);
        acquire_for(&service, &Session::new(), "m").assert_refused(400, "invalid_request");
        service.hold(&Session::new());
    }
}

fn old_records_are_forgotten_and_young_ones_kept(world: &World) {
    let schema = world.own_table();
    let insert = |first: u64, count: u64, age_ms: u64| {
        let rows: Vec<_> = (first..first + count)
            .map(|n| {
                format!(
                    "('p{n}', 'd', 'm{n}', '0', UNIX_TIMESTAMP(NOW(6)) * 1000000 - {age_ms} * 1000, NULL)"
                )
            })
            .collect();
        schema.sql(&format!(
            "INSERT INTO {MESSAGES} (id_prospect, id_device, message_id, owner_token, committed_us, result) VALUES {}",
            rows.join(",")
        ));
    };
    // A batch and a half; and what is still delivered again.
    insert(0, 250, 3_601_000);
    insert(1_000, 20, 3_500_000);
    let service = Service::start(&schema.url(), &["--message-retention-ms", "3600000"]);
    service.wait_for_line("forgot 250 messages");
    let left: Vec<String> =
        schema.connect().query(format!("SELECT message_id FROM {MESSAGES}")).unwrap();
    assert_eq!(left.len(), 20);
    let young = Session { device: "d".to_owned(), prospect: "p1000".to_owned() };
    assert_duplicate(&acquire_for(&service, &young, "m1000"), "m1000");
}
