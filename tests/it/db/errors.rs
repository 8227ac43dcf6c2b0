//! The database is slow, locked, exhausted or gone: no answer is ever a wrong grant.

use std::cell::RefCell;
use std::iter;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::proxy::{Fault, Proxy};
use crate::world::{Done, Service, Session, TABLE, World, age, binary, eventually, tests};

tests![
    a_locked_row_is_unavailable_and_holds_up_nobody_else,
    rows_that_are_locked_for_long_slow_down_their_own_sessions_only,
    a_lease_that_waited_for_a_row_lock_starts_afresh,
    a_lease_whose_commit_stalled_starts_afresh,
    a_lease_is_dated_when_its_row_was_got_not_when_it_was_asked_for,
    an_exhausted_primary_key_touches_nobody_elses_row,
    lost_connections_are_replaced_without_an_error,
    each_request_takes_one_round_trip_and_a_takeover_two,
    a_lease_that_a_trigger_changes_is_granted_to_nobody,
    a_lease_that_a_trigger_only_sees_is_told_as_ever,
    an_error_of_the_database_is_never_a_grant,
    what_ends_in_503_is_logged_at_debug,
];

fn a_locked_row_is_unavailable_and_holds_up_nobody_else(world: &World) {
    let session = Session::new();
    world.store(&session, "garbage");
    let mut neighbour = world.lock_row(&session);
    let refused = world.service.acquire(&session, json!({}));
    let message = refused.assert_refused(503, "unavailable");
    assert!(message.contains("another program holds a database lock"), "{message}");
    assert_eq!(refused.retry_after_s, Some(1));
    world.service.hold(&Session::new());
    assert_eq!(world.stored(&session).as_deref(), Some("garbage"));
    neighbour.query_drop("ROLLBACK").unwrap();
    world.service.acquire(&session, json!({})).assert_granted("takeover");
}

fn rows_that_are_locked_for_long_slow_down_their_own_sessions_only(world: &World) {
    const SLOW: Duration = Duration::from_millis(300);
    // On MySQL, whoever waits for a locked row bars its neighbours in the index, too.
    let world = &World::start(world.engine);
    let mut shares = Vec::new();
    // The machine may stall, but not each time.
    for _ in 0..4 {
        let service = world.serve(&[]);
        // All others are in the gap before the first of these.
        let locked = [(); 12].map(|()| Session::new());
        let locked =
            locked.map(|session| Session { prospect: format!("9{}", session.prospect), ..session });
        let _neighbours: Vec<_> = locked
            .iter()
            .map(|session| {
                world.store(session, "garbage");
                let mut neighbour = world.database.connect();
                neighbour.query_drop("START TRANSACTION").unwrap();
                // By its primary key: the row alone, and no gap.
                let key = format!("SELECT id_sessionX FROM {TABLE} WHERE {session}");
                let key: u64 = neighbour.query_first(key).unwrap().unwrap();
                let lock = format!("SELECT * FROM {TABLE} WHERE id_sessionX = {key} FOR UPDATE");
                neighbour.query_drop(lock).unwrap();
                neighbour
            })
            .collect();
        let (done, found) = (AtomicBool::new(false), AtomicUsize::new(0));
        let took = thread::scope(|scope| {
            let _done = Done(&done);
            for session in &locked {
                let (service, done, found) = (&service, &done, &found);
                scope.spawn(move || {
                    for turn in 0.. {
                        if done.load(Ordering::Relaxed) {
                            return;
                        }
                        let began = Instant::now();
                        service.acquire(session, json!({})).assert_refused(503, "unavailable");
                        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
                        found.fetch_add(usize::from(turn == 0), Ordering::Relaxed);
                    }
                });
            }
            eventually(
                || "each has been found to be locked",
                || (found.load(Ordering::Relaxed) == locked.len()).then_some(()),
            );
            let others: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let until = Instant::now() + Duration::from_secs(6);
                        let mut took = Vec::new();
                        while Instant::now() < until {
                            let (session, began) = (Session::new(), Instant::now());
                            let token = service.hold(&session);
                            took.push(began.elapsed());
                            assert_eq!(service.release(&session, &token).status, 200);
                        }
                        took
                    })
                })
                .collect();
            let took = others.into_iter().map(|other| other.join().unwrap());
            took.flatten().collect::<Vec<_>>()
        });
        let slow = took.iter().filter(|took| **took > SLOW).count();
        if slow == 0 {
            return;
        }
        shares.push((slow, took.len()));
    }
    panic!("slow, and all: {shares:?}");
}

fn a_lease_that_waited_for_a_row_lock_starts_afresh(world: &World) {
    // Where the machine stalls after that, the answer comes too late, and says so.
    eventually(
        || "a lease with most of its life before it".to_owned(),
        || {
            let session = Session::new();
            world.store(&session, "garbage");
            let mut neighbour = world.lock_row(&session);
            let unlocks = thread::spawn(move || {
                thread::sleep(Duration::from_millis(800));
                neighbour.query_drop("ROLLBACK").unwrap();
            });
            let reply = world.service.acquire(&session, json!({"ttl_ms": 1_000}));
            unlocks.join().unwrap();
            if reply.status == 503 {
                return None;
            }
            reply.assert_granted("takeover");
            assert!(reply.number("remaining_ms") >= 500, "{reply:?}");
            Some(())
        },
    );
}

fn a_lease_whose_commit_stalled_starts_afresh(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = Service::start(&proxy.url(DATABASE), &["--workers", "1"]);
    eventually(
        || "a lease with most of its life before it",
        || {
            let session = Session::new();
            proxy.set(Fault::Delay(Duration::from_millis(700)));
            let reply = thread::scope(|scope| {
                let asked = scope.spawn(|| service.acquire(&session, json!({"ttl_ms": 1_000})));
                // The answer is on its way by then.
                thread::sleep(Duration::from_secs(1));
                proxy.set(Fault::None);
                asked.join().unwrap()
            });
            if reply.status == 503 {
                return None;
            }
            reply.assert_granted("new");
            assert!(reply.number("remaining_ms") >= 500, "{reply:?}");
            Some(())
        },
    );
}

fn a_lease_is_dated_when_its_row_was_got_not_when_it_was_asked_for(world: &World) {
    // Whoever waits for a row that is being inserted locks its neighbours in MySQL's index too.
    let world = &World::start(world.engine);
    // As long as this stands, another server's lease may have come and gone.
    let session = Session::new();
    let mut neighbour = world.insert_row(&session);
    thread::scope(|scope| {
        let asked = scope.spawn(|| world.service.acquire(&session, json!({})));
        world.wait_for_write(&session);
        let clock = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)";
        let gone_at: Option<u64> = neighbour.query_first(clock).unwrap();
        neighbour.query_drop("ROLLBACK").unwrap();
        let granted = asked.join().unwrap();
        granted.assert_granted("new");
        assert!(Some(granted.number("fencing_token")) > gone_at, "{granted:?} {gone_at:?}");
    });
}

fn an_exhausted_primary_key_touches_nobody_elses_row(world: &World) {
    const LAST_ID: u64 = 2_147_483_647;
    let schema = world.own_table();
    let service = Service::start(&schema.url(), &[]);
    service.hold(&Session::new());
    schema.sql(&format!("ALTER TABLE {TABLE} AUTO_INCREMENT = {LAST_ID}"));
    let last = Session::new();
    schema.sql(&format!(
        "INSERT INTO {TABLE} (id_prospect, id_device, timestamp) VALUES ('{}', '{}', NOW() + INTERVAL 60 SECOND)",
        last.prospect, last.device
    ));
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
    age(&mut schema.connect(), &last, 91);
    let taken = service.acquire(&last, json!({}));
    taken.assert_granted("takeover");
    assert_eq!(row().0, LAST_ID);
    assert_eq!(service.release(&last, &taken.text("owner_token")).status, 200);

    // With no free id at all, the answer is a 503 that says what to do, and never "held".
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
    let untouched: Option<u64> = full
        .connect()
        .query_first(format!(
            "SELECT COUNT(*) FROM {TABLE} WHERE timestamp = '2099-01-01 00:00:00'"
        ))
        .unwrap();
    assert_eq!(untouched, Some(127));
}

fn lost_connections_are_replaced_without_an_error(world: &World) {
    let schema = world.own_table();
    let service = Service::start(&schema.url(), &["--workers", "4"]);
    let session = Session::new();
    for _ in 0..5 {
        let owner_token = service.hold(&session);
        // As a restart of the database does, or its wait_timeout.
        let end_connections = || {
            let sql = format!(
                "SELECT id FROM information_schema.processlist WHERE db = '{}' AND host <> 'localhost'",
                schema.name
            );
            let mut conn = world.database.connect();
            for id in conn.query::<u64, _>(sql).unwrap() {
                let _ = conn.query_drop(format!("KILL {id}"));
            }
        };
        end_connections();
        let list = service.get("/v1/locks");
        assert_eq!(list.json["locks"].as_array().map(Vec::len), Some(1));
        end_connections();
        let released = service.release(&session, &owner_token);
        assert_eq!(released.status, 200, "{released:?}");
        assert_eq!(service.get("/readyz").status, 200);
    }
}

fn each_request_takes_one_round_trip_and_a_takeover_two(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let schema = world.own_table();
    let service = Service::start(&proxy.url(&schema.name), &["--workers", "1"]);
    let count = |request: &dyn Fn()| {
        let now = || [proxy.sent(), proxy.more_statements()];
        let before = now();
        request();
        std::array::from_fn(|n| now()[n] - before[n])
    };
    let round_trips = || {
        let (session, stale, owner_token) =
            (Session::new(), Session::new(), RefCell::<String>::default());
        service.hold(&stale);
        age(&mut schema.connect(), &stale, 31);
        let token = || owner_token.borrow().clone();
        [
            count(&|| owner_token.replace(service.hold(&session)).clear()),
            count(&|| service.acquire(&session, json!({})).assert_held()),
            count(&|| assert_eq!(service.renew(&session, &token(), 30_000).status, 200)),
            count(&|| assert_eq!(service.commit(&session, &token(), "m").status, 200)),
            count(&|| assert_eq!(service.release(&session, &token()).status, 200)),
            count(&|| {
                let takeover = service.acquire(&stale, json!({}));
                takeover.assert_granted("takeover");
            }),
        ]
    };
    // What the service does beside its requests counts as well: its sweep and its measures, which begin
    // with it, and the pool, which opens a connection now and then.
    let began = Instant::now();
    let least = iter::repeat_with(round_trips)
        .take_while(|_| began.elapsed() < Duration::from_secs(1))
        .reduce(|a, b| std::array::from_fn(|n| std::array::from_fn(|m| a[n][m].min(b[n][m]))));
    assert_eq!(
        least,
        Some([[1, 0], [1, 0], [1, 3], [1, 4], [1, 0], [2, 3]]),
        "round trips, and statements behind the first one: acquire, held, renew, commit, release, takeover"
    );
}

fn a_lease_that_a_trigger_changes_is_granted_to_nobody(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!(
        "CREATE TRIGGER aged BEFORE UPDATE ON {TABLE} FOR EACH ROW \
         SET NEW.timestamp = CONCAT('2020', SUBSTRING(NEW.timestamp, 5))"
    ));
    let service = Service::start(&schema.url(), &[]);
    for _ in 0..2 {
        let refused = service.acquire(&Session::new(), json!({}));
        refused.assert_refused(503, "unavailable");
    }
}

fn a_lease_that_a_trigger_only_sees_is_told_as_ever(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!(
        "CREATE TRIGGER seen BEFORE UPDATE ON {TABLE} FOR EACH ROW SET NEW.id_device = NEW.id_device"
    ));
    let service = Service::start(&schema.url(), &[]);
    for _ in 0..2 {
        let fields = json!({"owner_token": "48210000000000000007"});
        let session = Session::new();
        let granted = service.acquire(&session, fields.clone());
        granted.assert_granted("new");
        let again = service.acquire(&session, fields);
        again.assert_granted("again");
        let own = Session::new();
        service.acquire(&own, json!({})).assert_granted("new");
    }
}

fn an_error_of_the_database_is_never_a_grant(world: &World) {
    let schema = world.own_table();
    let service = Service::start(&schema.url(), &[]);
    // What a migration does to a running service: the incident with the renamed column, a dropped
    // table, a column that became too short.
    for (change, undo) in [
        (
            "CHANGE timestamp stamped_at VARCHAR(255) NOT NULL",
            "CHANGE stamped_at timestamp VARCHAR(255) NOT NULL",
        ),
        ("RENAME TO gone", ""),
        ("MODIFY timestamp VARCHAR(40) NOT NULL", "MODIFY timestamp VARCHAR(255) NOT NULL"),
        ("ADD stage INT NOT NULL", "DROP stage"),
    ] {
        schema.sql(&format!("ALTER TABLE {TABLE} {change}"));
        let session = Session::new();
        service.acquire(&session, json!({})).assert_refused(503, "unavailable");
        service.release(&session, "48210000000000000007").assert_refused_or_lost();
        if change == "RENAME TO gone" {
            service.get("/v1/locks").assert_refused(503, "unavailable");
        }
        if undo.is_empty() {
            schema.sql(&format!("ALTER TABLE gone RENAME TO {TABLE}"));
        } else {
            schema.sql(&format!("ALTER TABLE {TABLE} {undo}"));
        }
        let owner_token = service.hold(&session);
        assert_eq!(service.release(&session, &owner_token).status, 200);
    }
}

fn what_ends_in_503_is_logged_at_debug(world: &World) {
    let session = Session::new();
    world.store(&session, "garbage");
    let _neighbour = world.lock_row(&session);
    let url = world.database.url(DATABASE);
    let mut command = Command::new(binary());
    command.args(["serve", "--database-url", &url]);
    let service = Service::spawn(command.env("RUST_LOG", "debug"));
    service.wait_for_line("INFO  ready");
    service.acquire(&session, json!({})).assert_refused(503, "unavailable");
    service.wait_for_line(&format!(
        "DEBUG Session lock not served id_prospect=\"{}\" id_device=\"{}\": another program",
        session.prospect, session.device
    ));
}
