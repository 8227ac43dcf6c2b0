//! Rows that other programs lock, and the length of a lease that waited for such a lock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{
    Engine, Fault, MariaDb, Service, Session, SetOnDrop, TABLE, World, eventually, tests,
};

tests![
    a_locked_row_is_unavailable_and_holds_up_nobody_else,
    a_locked_row_still_says_who_holds_the_session,
    sessions_behind_a_gap_lock_hold_up_nobody_else,
    locked_rows_do_not_hold_up_the_only_worker,
    rows_that_are_locked_for_long_slow_down_their_own_sessions_only,
    a_lease_that_waited_for_half_of_its_ttl_is_granted_when_its_owner_asks_again,
    a_lease_whose_commit_stalled_stays_if_another_server_answered_it,
    a_lease_is_dated_when_its_row_was_got_not_when_it_was_asked_for,
];

fn a_locked_row_is_unavailable_and_holds_up_nobody_else(world: &World) {
    let session = Session::new();
    world.store(&session, "garbage");
    let mut other_program = world.lock_row(&session);
    let refused = world.service.acquire(&session, json!({}));
    let message = refused.assert_refused(503, "unavailable");
    assert!(message.contains("another program holds a database lock"), "{message}");
    assert_eq!(refused.retry_after_s, Some(1));
    world.service.hold(&Session::new());
    assert_eq!(world.stored(&session).as_deref(), Some("garbage"));
    other_program.query_drop("ROLLBACK").unwrap();
    world.service.acquire(&session, json!({})).assert_granted("takeover");
}

fn a_locked_row_still_says_who_holds_the_session(world: &World) {
    let session = Session::new();
    let token = world.service.hold(&session);
    let mut other_program = lock_row_alone(world, &session);
    world.service.renew(&session, &token, 30_000).assert_refused(503, "unavailable");
    // The service now knows that the row is locked. Requests that only read are not affected.
    let began = Instant::now();
    world.service.acquire(&session, json!({})).assert_held();
    world.service.acquire(&session, json!({"owner_token": token})).assert_granted("again");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    other_program.query_drop("ROLLBACK").unwrap();
    assert_eq!(world.service.renew(&session, &token, 30_000).status, 200);
}

/// A lock on the gap where a row would be is visible only to a statement that waits for it.
fn sessions_behind_a_gap_lock_hold_up_nobody_else(world: &World) {
    let world = &World::start(world.engine);
    let service = world.serve(&[]);
    let locked = [(); 12].map(|()| session_with_prefix('9'));
    // The gap begins after this row.
    world.store(&session_with_prefix('8'), "garbage");
    let mut other_program = world.database.connect();
    let sql = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
    other_program.query_drop(sql).unwrap();
    other_program.query_drop("START TRANSACTION").unwrap();
    let gap = format!("SELECT * FROM {TABLE} WHERE id_prospect > '9' FOR UPDATE");
    other_program.query_drop(gap).unwrap();
    if world.engine == Engine::MariaDb(MariaDb::V10_5) {
        // This version waits longer for a lock and delays other sessions: `check` warns of it.
        assert_all_are_served_after(&service, &locked, || {
            other_program.query_drop("ROLLBACK").unwrap();
        });
        return;
    }
    let took = time_pairs_beside_locked(&service, &locked);
    let slow = took.iter().filter(|took| **took > Duration::from_millis(1_500)).count();
    assert!(slow * 20 < took.len(), "{slow} of {}", took.len());
}

/// Asserts that sessions are refused while another program has locked them, and granted as soon as
/// it has ended.
fn assert_all_are_served_after(service: &Service, locked: &[Session], unlock: impl FnOnce()) {
    const SLOWEST: Duration = Duration::from_secs(15);
    thread::scope(|scope| {
        for session in locked {
            scope.spawn(|| {
                let began = Instant::now();
                service.acquire(session, json!({})).assert_refused(503, "unavailable");
                assert!(began.elapsed() < SLOWEST, "{:?}", began.elapsed());
            });
        }
    });
    unlock();
    let began = Instant::now();
    for session in locked {
        service.hold(session);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

fn rows_that_are_locked_for_long_slow_down_their_own_sessions_only(world: &World) {
    assert_others_are_fast::<12>(world, &[], Duration::from_millis(300));
}

fn locked_rows_do_not_hold_up_the_only_worker(world: &World) {
    assert_others_are_fast::<3>(world, &["--workers", "1"], Duration::from_millis(500));
}

/// Locks the rows of some sessions, and asserts that requests for others take no longer than this.
fn assert_others_are_fast<const LOCKED: usize>(world: &World, options: &[&str], slow: Duration) {
    // On MySQL, a request that waits for a locked row locks the adjacent index entries, too.
    let world = &World::start(world.engine);
    let mut shares = Vec::new();
    // Tries again, because a busy machine may stall.
    for _ in 0..4 {
        let service = world.serve(options);
        // All other rows are in the gap before the first of these.
        let locked = [(); LOCKED].map(|()| session_with_prefix('9'));
        let _other_programs = locked.each_ref().map(|session| {
            world.store(session, "garbage");
            lock_row_alone(world, session)
        });
        let took = time_pairs_beside_locked(&service, &locked);
        let slow = took.iter().filter(|took| **took > slow).count();
        if slow == 0 {
            return;
        }
        shares.push((slow, took.len()));
    }
    panic!("slow, and all: {shares:?}");
}

/// A session whose row is after all rows with a lower first digit.
fn session_with_prefix(digit: char) -> Session {
    let session = Session::new();
    Session { prospect: format!("{digit}{}", session.prospect), ..session }
}

/// Another program, which locks a row by its primary key: only the row, and no gap.
fn lock_row_alone(world: &World, session: &Session) -> mysql::Conn {
    let mut other_program = world.database.connect();
    other_program.query_drop("START TRANSACTION").unwrap();
    let key = format!("SELECT id_sessionX FROM {TABLE} WHERE {session}");
    let key: u64 = other_program.query_first(key).unwrap().unwrap();
    let lock = format!("SELECT * FROM {TABLE} WHERE id_sessionX = {key} FOR UPDATE");
    other_program.query_drop(lock).unwrap();
    other_program
}

/// Acquires and releases free sessions for some seconds, while other threads constantly request
/// locked ones. Returns how long each acquire took.
fn time_pairs_beside_locked(service: &Service, locked: &[Session]) -> Vec<Duration> {
    let (done, found) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ask_for_locked = |session: &Session| {
        for turn in 0.. {
            if done.load(Ordering::Relaxed) {
                return;
            }
            let began = Instant::now();
            service.acquire(session, json!({})).assert_refused(503, "unavailable");
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            found.fetch_add(usize::from(turn == 0), Ordering::Relaxed);
        }
    };
    let time_pairs = || {
        let until = Instant::now() + Duration::from_secs(6);
        let mut took = Vec::new();
        while Instant::now() < until {
            let (session, began) = (Session::new(), Instant::now());
            let token = service.hold(&session);
            took.push(began.elapsed());
            assert_eq!(service.release(&session, &token).status, 200);
        }
        took
    };
    thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        let (ask_for_locked, time_pairs) = (&ask_for_locked, &time_pairs);
        for session in locked {
            scope.spawn(move || ask_for_locked(session));
        }
        eventually(
            || "each has been found to be locked",
            || (found.load(Ordering::Relaxed) == locked.len()).then_some(()),
        );
        let others: Vec<_> = (0..4).map(|_| scope.spawn(time_pairs)).collect();
        others.into_iter().flat_map(|other| other.join().unwrap()).collect()
    })
}

fn a_lease_that_waited_for_half_of_its_ttl_is_granted_when_its_owner_asks_again(world: &World) {
    // On MySQL, a request that waits for an uncommitted insert locks the adjacent index entries, too.
    let world = &World::start(world.engine);
    // On a machine that stalls, the wait is shorter, or the lease expires before its owner asks again.
    eventually(
        || "a lease with most of its ttl left",
        || {
            let session = Session::new();
            let mut other_program = world.insert_row(&session);
            let unlocks = thread::spawn(move || {
                thread::sleep(Duration::from_millis(800));
                other_program.query_drop("ROLLBACK").unwrap();
            });
            let refused = world.service.acquire(&session, json!({"ttl_ms": 1_000}));
            unlocks.join().unwrap();
            let token = (refused.status == 503).then(|| refused.json["owner_token"].as_str())??;
            let fields = json!({"ttl_ms": 1_000, "owner_token": token});
            let reply = world.service.acquire(&session, fields);
            (reply.json["how"] == "again" && reply.number("remaining_ms") >= 500).then_some(())
        },
    );
}

/// The owner token is the caller's, who asks two servers. The answer of the first is late.
fn a_lease_whose_commit_stalled_stays_if_another_server_answered_it(world: &World) {
    const OWNER: &str = "48210000000000000007";
    const TTL_MS: u64 = 5_000;
    let (proxy, service) = world.serve_through_proxy(&["--workers", "1"]);
    let fields = json!({"owner_token": OWNER, "message_id": "m", "ttl_ms": TTL_MS});
    eventually(
        || "a message that was answered in time",
        || {
            let session = Session::new();
            // It opens a connection, which would take too long while the network is slow.
            service.recovery();
            // There and back, more than half of the ttl.
            proxy.set(Fault::Delay(Duration::from_millis(1_300)));
            let (found, committed) = thread::scope(|scope| {
                let asked = scope.spawn(|| service.acquire(&session, fields.clone()));
                while world.stored(&session).is_none() && !asked.is_finished() {
                    thread::sleep(Duration::from_millis(10));
                }
                let found = world.service.acquire(&session, fields.clone());
                let committed = world.service.commit(&session, OWNER, "m");
                // Its answer is on its way already.
                proxy.set(Fault::None);
                asked.join().unwrap();
                (found, committed)
            });
            if found.json["how"] != "again" || committed.status != 200 {
                // The machine stalled, and the lease expired first.
                return None;
            }
            world.service.acquire(&session, json!({})).assert_held();
            assert_eq!(world.service.renew(&session, OWNER, 30_000).status, 200);
            Some(())
        },
    );
}

fn a_lease_is_dated_when_its_row_was_got_not_when_it_was_asked_for(world: &World) {
    // On MySQL, a request that waits for an uncommitted insert locks the adjacent index entries,
    // too.
    let world = &World::start(world.engine);
    let session = Session::new();
    // Until this ends, another server may have granted and released a lease.
    let mut other_program = world.insert_row(&session);
    thread::scope(|scope| {
        let asked = scope.spawn(|| world.service.acquire(&session, json!({})));
        world.wait_for_write(&session);
        let clock = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)";
        let gone_at: Option<u64> = other_program.query_first(clock).unwrap();
        other_program.query_drop("ROLLBACK").unwrap();
        let granted = asked.join().unwrap();
        granted.assert_granted("new");
        assert!(Some(granted.number("fencing_token")) > gone_at, "{granted:?} {gone_at:?}");
    });
}
