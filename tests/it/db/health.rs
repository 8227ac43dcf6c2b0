//! The database or the network fails: every request ends soon, and the recovery is fast.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    CLOSE, DatabaseServer, Fault, Service, Session, SetOnDrop, World, assert_says, eventually,
    raw_get, run_check, tests,
};

tests![
    every_request_ends_soon_whatever_the_database_does,
    every_request_ends_soon_whatever_the_network_does,
    healthz_answers_while_all_workers_wait_for_the_database,
    while_the_database_hangs_requests_are_refused_at_once,
    a_frozen_database_is_not_a_frozen_service,
    writes_that_do_not_end_make_the_service_unavailable_and_few_connections,
    a_failure_that_lasts_is_logged_with_a_count,
];

/// The longest duration of a request in any failure.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// The longest recovery of the service after that of the database.
const RECOVERS_WITHIN: Duration = Duration::from_secs(3);

/// More clients than the workers can serve at a time.
const CLIENTS: usize = 250;

/// Many clients send every kind of request while the database or the network fails. Each answer
/// must be allowed in this failure. Returns the duration of the slowest.
fn load_while(
    service: &Service,
    begin: impl FnOnce(),
    lasts: Duration,
    end: impl FnOnce(),
) -> Duration {
    let done = AtomicBool::new(false);
    let client = |number: usize| {
        let mut slowest = Duration::ZERO;
        while !done.load(Ordering::Relaxed) {
            let session = Session::new();
            let asked = Instant::now();
            let reply = match number % 10 {
                0 => service.get("/readyz"),
                1 => service.get(&session.path()),
                2 => service.get("/v1/locks?limit=1"),
                3 => service.release(&session, "48210000000000000007"),
                _ => service.acquire(&session, json!({})),
            };
            slowest = slowest.max(asked.elapsed());
            match reply.status {
                200 | 409 => {}
                503 => {
                    reply.assert_refused(503, "unavailable");
                    assert_eq!(reply.retry_after_s, Some(1));
                    // A bot waits for the whole second.
                    thread::sleep(Duration::from_millis(200));
                }
                _ => panic!("{reply:?}"),
            }
        }
        slowest
    };
    let slowest = thread::scope(|scope| {
        let is_done = SetOnDrop(&done);
        let client = &client;
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        thread::sleep(Duration::from_millis(300));
        begin();
        thread::sleep(lasts);
        end();
        drop(is_done);
        clients.into_iter().map(|client| client.join().unwrap()).max()
    });
    slowest.unwrap_or_default()
}

/// Runs a failure that returns the slowest answer and the recovery, both of which must be short.
/// Tries again, because a busy machine may stall.
fn assert_requests_end_soon(what: &str, mut failure: impl FnMut() -> (Duration, Duration)) {
    let mut tries = Vec::new();
    while tries.len() < 3 {
        let (slowest, recovery) = failure();
        if slowest < ENDS_WITHIN && recovery < RECOVERS_WITHIN {
            return;
        }
        tries.push((slowest, recovery));
    }
    panic!("{what}: slowest answer and recovery: {tries:?}");
}

fn every_request_ends_soon_whatever_the_database_does(world: &World) {
    let mut server = DatabaseServer::start_migrated(world.engine, &[]);
    let service = Service::start(&server.url(DATABASE), &[]);
    let lasts = Duration::from_secs(6);

    assert_requests_end_soon("frozen", || {
        let slowest = load_while(&service, || server.freeze(), lasts, || server.thaw());
        (slowest, service.recovery())
    });

    assert_requests_end_soon("killed", || {
        let slowest = load_while(&service, || server.crash(), lasts, || {});
        service.get("/readyz").assert_refused(503, "unavailable");
        server.restart();
        (slowest, service.recovery())
    });

    let root = |sql: &str| server.connect().query_drop(sql).unwrap();
    let read_only = || root("SET GLOBAL read_only = 1");
    let bot_url = server.create_bot();
    let service = Service::start(&bot_url, &[]);
    assert_requests_end_soon("read-only", || {
        let slowest = load_while(&service, read_only, lasts, || {
            root("SET GLOBAL read_only = 0");
        });
        (slowest, service.recovery())
    });

    let taken = RefCell::default();
    assert_requests_end_soon("out of connections", || {
        let take = || drop(taken.replace(take_all_connections(&server, &bot_url)));
        let slowest = load_while(&service, take, lasts, || drop(taken.take()));
        (slowest, service.recovery())
    });
}

/// Uses all connections that the server allows, and ends those of the service. The database
/// reserves one more for root.
fn take_all_connections(server: &DatabaseServer, bot_url: &str) -> Vec<mysql::Conn> {
    const CONNECTIONS: usize = 15;
    let mut root = server.connect();
    root.query_drop(format!("SET GLOBAL max_connections = {CONNECTIONS}")).unwrap();
    let services: Vec<u64> =
        root.query("SELECT id FROM information_schema.processlist WHERE user = 'bot'").unwrap();
    let open = || mysql::Conn::new(mysql::Opts::from_url(bot_url).unwrap()).ok();
    let mut taken: Vec<_> = (0..CONNECTIONS).map_while(|_| open()).collect();
    for id in services {
        let _ = root.query_drop(format!("KILL {id}"));
        taken.extend(open());
    }
    taken.push(root);
    taken
}

fn every_request_ends_soon_whatever_the_network_does(world: &World) {
    // With one worker, a request that misses its batch waits for the next one.
    let (proxy, service) = world.serve_through_proxy(&["--workers", "1"]);
    for fault in [
        Fault::Reset,
        Fault::Hold,
        Fault::Discard,
        Fault::DiscardReplies,
        Fault::HoldWrites,
        Fault::Delay(Duration::from_millis(400)),
    ] {
        // Twice as long as one attempt of the service takes.
        let lasts = Duration::from_secs(if fault == Fault::HoldWrites { 14 } else { 6 });
        assert_requests_end_soon(&format!("{fault:?}"), || {
            let slowest =
                load_while(&service, || proxy.set(fault), lasts, || proxy.set(Fault::None));
            (slowest, service.recovery())
        });
    }
}

fn healthz_answers_while_all_workers_wait_for_the_database(world: &World) {
    let (proxy, service) = world.serve_through_proxy(&["--workers", "1"]);
    // The test tries again, because a busy machine may stall.
    eventually(
        || "an answer long before the worker is free",
        || {
            service.recovery();
            proxy.set(Fault::HoldWrites);
            let took = thread::scope(|scope| {
                scope.spawn(|| service.acquire(&Session::new(), json!({})));
                thread::sleep(Duration::from_millis(300));
                let asked = Instant::now();
                assert_eq!(service.get("/healthz").status, 200);
                asked.elapsed()
            });
            proxy.set(Fault::None);
            (took < Duration::from_secs(1)).then_some(())
        },
    );
}

fn while_the_database_hangs_requests_are_refused_at_once(world: &World) {
    let (proxy, service) = world.serve_through_proxy(&[]);
    service.recovery();
    proxy.set(Fault::Discard);
    let refusal = || {
        let began = Instant::now();
        service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
        began.elapsed()
    };
    let first = refusal();
    let later = (0..5).map(|_| refusal()).min().unwrap();
    assert!(later * 3 < first, "{later:?}, at first {first:?}");
}

fn a_frozen_database_is_not_a_frozen_service(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &[]);
    let service = Service::start(&server.url(DATABASE), &["--workers", "2"]);
    server.freeze();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        // More clients than the workers can serve at a time.
        for _ in 0..400 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    service.acquire(&Session::new(), json!({}));
                }
            });
        }
        thread::sleep(Duration::from_secs(2));
        for _ in 0..5 {
            let began = Instant::now();
            let answer = service.endpoint.ask(raw_get("/healthz", CLOSE));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
            thread::sleep(Duration::from_millis(500));
        }
        server.thaw();
    });
}

fn writes_that_do_not_end_make_the_service_unavailable_and_few_connections(world: &World) {
    let (proxy, service) = world.serve_through_proxy(&["--workers", "3"]);
    proxy.set(Fault::HangWrites);
    let done = AtomicBool::new(false);
    let connections = || {
        let metrics = service.text("/metrics");
        let opened = "session_lock_database_connections_opened_total ";
        metrics.lines().find_map(|line| line.strip_prefix(opened)?.parse::<u64>().ok()).unwrap()
    };
    thread::scope(|scope| {
        let _stop = SetOnDrop(&done);
        for _ in 0..8 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    service.acquire(&Session::new(), json!({}));
                    thread::sleep(Duration::from_millis(100));
                }
            });
        }
        let unready = || (service.get("/readyz").status == 503).then_some(());
        eventually(|| "it is not ready", unready);
        service.wait_for_line("although they were killed");
        let printed = run_check(&proxy.url(DATABASE));
        assert_eq!(printed.status, Some(1), "{printed:?}");
        assert_says(&printed.out, &["problem  writes", "quorum"]);
        for _ in 0..5 {
            service.get("/readyz").assert_refused(503, "unavailable");
            thread::sleep(Duration::from_millis(200));
        }
    });
    assert!(connections() < 60, "{} connections", connections());
    proxy.set(Fault::None);
    service.recovery();
}

fn a_failure_that_lasts_is_logged_with_a_count(world: &World) {
    let session = Session::new();
    world.store(&session, "garbage");
    let service = world.serve(&[]);
    let mut other_program = world.lock_row(&session);
    let lines = || {
        let log = service.log();
        log.into_iter().filter(|line| line.contains("were not served")).collect::<Vec<_>>()
    };
    let began = Instant::now();
    while lines().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "no line");
        service.acquire(&session, json!({})).assert_refused(503, "unavailable");
    }
    for _ in 0..3 {
        service.acquire(&session, json!({})).assert_refused(503, "unavailable");
    }
    let [line] = &lines()[..] else { panic!("{:?}", lines()) };
    assert!(line.contains("WARN") && line.contains("another program holds"), "{line}");
    other_program.query_drop("ROLLBACK").unwrap();
}
