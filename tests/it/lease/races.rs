//! Many workers and few sessions: never two holders at once, in spite of crashes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::OwnerToken;

use crate::world::{
    Reply, Service, Session, SetOnDrop, TABLE, TIMEOUT, World, age, eventually, old_program, tests,
};

tests![
    a_storm_on_two_servers_grants_nothing_twice,
    fencing_tokens_of_a_hot_session_on_four_servers_rise,
    a_storm_under_killed_connections_grants_nothing_twice,
    the_storm_finds_the_old_programs_double_grants,
    a_counter_under_the_lock_loses_nothing,
];

const THREADS: u64 = 16;

/// How many times each thread tries to lock a session.
const ATTEMPTS: u64 = 150;

/// A lock of sessions, for one thread.
trait Locker {
    /// Locks the session. Returns the fencing token, if the session was free.
    fn try_lock(&mut self, session: &Session) -> Option<u64>;
    fn unlock(&mut self, session: &Session);
    /// Crashes while it holds the session, whose lock expires.
    fn crash(&mut self, session: &Session);
}

/// The holders of sessions, as the threads themselves record them.
struct Witness {
    session: Session,
    holder: AtomicU64,
    fencing_token: AtomicU64,
}

#[derive(Debug, Default)]
struct Tally {
    grants: AtomicU64,
    crashes: AtomicU64,
    double_grants: AtomicU64,
    sunken_tokens: AtomicU64,
}

/// Threads that lock, unlock and crash for some time.
fn race<L: Locker + Send>(sessions: usize, lockers: Vec<L>) -> Tally {
    let tally = Tally::default();
    race_into(&tally, sessions, lockers);
    tally
}

/// Like [`race`], with a tally that others can read meanwhile.
fn race_into<L: Locker + Send>(tally: &Tally, sessions: usize, lockers: Vec<L>) {
    let witnesses: Vec<_> = (0..sessions)
        .map(|_| Witness { session: Session::new(), holder: 0.into(), fencing_token: 0.into() })
        .collect();
    thread::scope(|scope| {
        for (number, mut locker) in (1..).zip(lockers) {
            let witnesses = &witnesses;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(number);
                for _ in 0..ATTEMPTS {
                    let witness = &witnesses[rng.usize(..sessions)];
                    let Some(fencing_token) = locker.try_lock(&witness.session) else {
                        continue;
                    };
                    tally.grants.fetch_add(1, Ordering::SeqCst);
                    if witness.holder.swap(number, Ordering::SeqCst) != 0 {
                        tally.double_grants.fetch_add(1, Ordering::SeqCst);
                    }
                    if witness.fencing_token.swap(fencing_token, Ordering::SeqCst) >= fencing_token
                    {
                        tally.sunken_tokens.fetch_add(1, Ordering::SeqCst);
                    }
                    thread::yield_now();
                    if witness.holder.swap(0, Ordering::SeqCst) != number {
                        tally.double_grants.fetch_add(1, Ordering::SeqCst);
                    }
                    if rng.u32(..8) == 0 {
                        tally.crashes.fetch_add(1, Ordering::SeqCst);
                        locker.crash(&witness.session);
                    } else {
                        locker.unlock(&witness.session);
                    }
                }
            });
        }
    });
}

fn assert_exclusive(tally: &Tally) {
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    assert_eq!((count(&tally.double_grants), count(&tally.sunken_tokens)), (0, 0), "{tally:?}");
    assert!(count(&tally.grants) > 100 && count(&tally.crashes) > 10, "{tally:?}");
}

/// A bot's worker, which draws its own tokens and repeats requests that are answered with 503.
struct Bot<'a> {
    service: &'a Service,
    database: mysql::Conn,
    owner_token: String,
}

impl<'a> Bot<'a> {
    fn new(service: &'a Service, database: mysql::Conn) -> Self {
        Self { service, database, owner_token: String::new() }
    }

    fn ask(&self, path: &str, session: &Session) -> Reply {
        let body = session.with(json!({"owner_token": self.owner_token}));
        eventually(
            || "an answer other than 503",
            || Some(self.service.post(path, &body)).filter(|reply| reply.status != 503),
        )
    }
}

impl Locker for Bot<'_> {
    fn try_lock(&mut self, session: &Session) -> Option<u64> {
        OwnerToken::draw().secret().clone_into(&mut self.owner_token);
        let reply = self.ask("/v1/acquire", session);
        match reply.status {
            200 => Some(reply.number("fencing_token")),
            409 => None,
            _ => panic!("{reply:?}"),
        }
    }

    fn unlock(&mut self, session: &Session) {
        let reply = self.ask("/v1/release", session);
        assert!(matches!(reply.status, 200 | 409), "{reply:?}");
    }

    fn crash(&mut self, session: &Session) {
        age(&mut self.database, session, 31);
    }
}

fn a_storm_on_two_servers_grants_nothing_twice(world: &World) {
    let second = world.serve(&["--workers", "3"]);
    let services = [&world.service, &second];
    let bot = |number: u64| {
        let service = services[usize::try_from(number).unwrap() % services.len()];
        Bot::new(service, world.database.connect())
    };
    assert_exclusive(&race(4, (1..=THREADS).map(bot).collect()));
}

fn fencing_tokens_of_a_hot_session_on_four_servers_rise(world: &World) {
    let services = [(); 4].map(|()| world.serve(&[]));
    let bot = |number: u64| {
        let service = &services[usize::try_from(number).unwrap() % services.len()];
        Bot::new(service, world.database.connect())
    };
    let tally = race(1, (1..=THREADS).map(bot).collect());
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let wrong = (count(&tally.double_grants), count(&tally.sunken_tokens));
    assert_eq!(wrong, (0, 0), "{tally:?}");
    // Most attempts find the session held.
    assert!(count(&tally.grants) > 30, "{tally:?}");
}

fn a_storm_under_killed_connections_grants_nothing_twice(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let (tally, over) = (Tally::default(), AtomicBool::new(false));
    let bots = (1..=THREADS).map(|_| Bot::new(&service, schema.connect())).collect();
    let killed = thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        let killer = scope.spawn(|| {
            let (mut killed, mut seen_grants) = (0, 0);
            let mut conn = world.database.connect();
            while !over.load(Ordering::SeqCst) {
                // If no lease was granted since the last kill, a busy machine has had no time to
                // connect again, and would have none after another.
                let grants = tally.grants.load(Ordering::SeqCst);
                if grants != seen_grants {
                    seen_grants = grants;
                    killed += schema.kill_connections_with(&mut conn);
                }
                thread::sleep(Duration::from_millis(30));
            }
            killed
        });
        race_into(&tally, 4, bots);
        over.store(true, Ordering::SeqCst);
        killer.join().unwrap()
    });
    assert!(killed > 20, "{killed} connections killed");
    assert_exclusive(&tally);
}

/// The old program, which checks and then writes.
struct OldProgram(mysql::Conn);

impl Locker for OldProgram {
    fn try_lock(&mut self, session: &Session) -> Option<u64> {
        if old_program::is_held(&mut self.0, session) {
            return None;
        }
        // Sometimes it is rolled back in a deadlock, and does not try again.
        let upsert = old_program::upsert_sql(session, "NOW()");
        self.0.query_drop(upsert).ok().map(|()| u64::MAX)
    }

    fn unlock(&mut self, session: &Session) {
        let _ = self.0.query_drop(format!("DELETE FROM {TABLE} WHERE {session}"));
    }

    fn crash(&mut self, session: &Session) {
        let past = "timestamp = NOW() - INTERVAL 31 SECOND";
        let _ = self.0.query_drop(format!("UPDATE {TABLE} SET {past} WHERE {session}"));
    }
}

fn the_storm_finds_the_old_programs_double_grants(world: &World) {
    let until = Instant::now() + TIMEOUT;
    loop {
        let tally = race(4, (1..=THREADS).map(|_| OldProgram(world.database.connect())).collect());
        if tally.double_grants.load(Ordering::SeqCst) > 0 {
            return;
        }
        assert!(Instant::now() < until, "too little load to find anything: {tally:?}");
    }
}

fn a_counter_under_the_lock_loses_nothing(world: &World) {
    const WORKERS: u64 = 8;
    const TURNS: u64 = 15;
    let (session, counter) = (Session::new(), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for _ in 0..TURNS {
                    let granted = || {
                        Some(world.service.acquire(&session, json!({})))
                            .filter(|reply| reply.status == 200)
                    };
                    let owner_token =
                        eventually(|| "the lock is free", granted).text("owner_token");
                    // The update has two steps, so that only the lock prevents lost updates.
                    let value = counter.load(Ordering::SeqCst);
                    thread::yield_now();
                    counter.store(value + 1, Ordering::SeqCst);
                    assert_eq!(world.service.release(&session, &owner_token).status, 200);
                }
            });
        }
    });
    assert_eq!(counter.load(Ordering::SeqCst), WORKERS * TURNS);
}
