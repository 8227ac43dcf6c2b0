//! The database dies, hangs, or is out of reach: every request ends soon, nothing is granted that
//! nobody is told of, and all is well again soon after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;
use session_lock::testing::OwnerToken;

use crate::world::proxy::{Fault, Proxy};
use crate::world::{
    DatabaseServer, Done, Engine, Reply, Service, Session, TABLE, World, eventually, migrate, tests,
};

tests![
    every_request_ends_soon_whatever_the_database_does,
    every_request_ends_soon_whatever_the_network_does,
    healthz_answers_while_all_workers_wait_for_the_database,
    nobody_waits_behind_what_only_reads,
    while_the_database_hangs_requests_are_refused_at_once,
    what_has_waited_for_long_is_not_tried,
    connections_that_the_network_forgot_cost_one_timeout,
    a_lease_that_nobody_could_be_told_of_belongs_to_the_token_in_the_503,
    a_write_that_arrives_late_holds_nothing,
    an_asynchronous_failover_forgets_what_the_replica_had_not_received,
    a_read_only_replica_that_lags_behind_is_no_answer,
    a_failover_ends_nobody_elses_connection,
    sigterm_answers_who_waits_for_the_database,
];

/// No request takes longer, whatever happens.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// All is well so soon after the database is.
const RECOVERS_WITHIN: Duration = Duration::from_secs(3);

/// More than the workers can take at a time.
const CLIENTS: usize = 250;

/// Many clients ask for all there is to ask for, while something is wrong with the database; how
/// long the slowest answer took. Each answer is one that is allowed then.
fn storm_while(
    service: &Service,
    begin: impl FnOnce(),
    lasts: Duration,
    end: impl FnOnce(),
) -> Duration {
    let done = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        let is_done = Done(&done);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let done = &done;
                scope.spawn(move || {
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
                                // As a bot does, but not as long.
                                thread::sleep(Duration::from_millis(200));
                            }
                            _ => panic!("{reply:?}"),
                        }
                    }
                    slowest
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        begin();
        thread::sleep(lasts);
        end();
        drop(is_done);
        clients.into_iter().map(|client| client.join().unwrap()).max()
    });
    slowest.unwrap_or_default()
}

/// How long it took until leases could be taken and given back again, by all workers.
fn recovery(service: &Service) -> Duration {
    let began = Instant::now();
    eventually(
        || format!("all works again: {:?}", service.log().iter().rev().take(5).collect::<Vec<_>>()),
        || {
            let works = || {
                let session = Session::new();
                let reply = service.acquire(&session, json!({}));
                reply.status == 200
                    && service.release(&session, &reply.text("owner_token")).status == 200
            };
            let all = thread::scope(|scope| {
                let tries: Vec<_> = (0..8).map(|_| scope.spawn(works)).collect();
                tries.into_iter().all(|works| works.join().unwrap())
            });
            (all && service.get("/readyz").status == 200).then_some(())
        },
    );
    began.elapsed()
}

/// Every request ended soon, and all was well soon after. Where the machine stalls, once more.
fn assert_short(what: &str, mut outage: impl FnMut() -> (Duration, Duration)) {
    let mut tries = Vec::new();
    while tries.len() < 3 {
        let (slowest, recovery) = outage();
        if slowest < ENDS_WITHIN && recovery < RECOVERS_WITHIN {
            return;
        }
        tries.push((slowest, recovery));
    }
    panic!("{what}: slowest answer and recovery: {tries:?}");
}

fn every_request_ends_soon_whatever_the_database_does(world: &World) {
    let mut server = DatabaseServer::start(world.engine, &[]);
    let url = server.url(DATABASE);
    migrate(&url);
    let service = Service::start(&url, &[]);
    let lasts = Duration::from_secs(6);

    assert_short("frozen", || {
        let slowest = storm_while(&service, || server.freeze(), lasts, || server.thaw());
        (slowest, recovery(&service))
    });

    assert_short("killed", || {
        let slowest = storm_while(&service, || server.crash(), lasts, || {});
        service.get("/readyz").assert_refused(503, "unavailable");
        server.restart();
        (slowest, recovery(&service))
    });

    let admin = |sql: &str| server.connect().query_drop(sql).unwrap();
    let read_only = || admin("SET GLOBAL read_only = 1");
    // The tests' own user may write even then.
    let bots = {
        admin("CREATE USER bot@'127.0.0.1'");
        admin("GRANT SELECT, INSERT, UPDATE, DELETE ON session_lock.* TO bot@'127.0.0.1'");
        Service::start(&url.replace("root@", "bot@"), &[])
    };
    assert_short("read-only", || {
        let slowest = storm_while(&bots, read_only, lasts, || {
            admin("SET GLOBAL read_only = 0");
        });
        (slowest, recovery(&bots))
    });

    // Others have all connections there are, and ours were ended. Root has one that nobody can take.
    let others = || {
        let mut root = server.connect();
        root.query_drop("SET GLOBAL max_connections = 15").unwrap();
        let ours: Vec<u64> =
            root.query("SELECT id FROM information_schema.processlist WHERE user = 'bot'").unwrap();
        let bot = server.url(DATABASE).replace("root@", "bot@");
        let open = || mysql::Conn::new(mysql::Opts::from_url(&bot).unwrap()).ok();
        let mut others: Vec<_> = (0..15).map_while(|_| open()).collect();
        for id in ours {
            let _ = root.query_drop(format!("KILL {id}"));
            others.extend(open());
        }
        others.push(root);
        others
    };
    let taken = std::cell::RefCell::default();
    assert_short("out of connections", || {
        let slowest =
            storm_while(&bots, || drop(taken.replace(others())), lasts, || drop(taken.take()));
        (slowest, recovery(&bots))
    });
}

fn every_request_ends_soon_whatever_the_network_does(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    // With one worker, whoever is not among the first it takes waits for its next round.
    let service = Service::start(&proxy.url(DATABASE), &["--workers", "1"]);
    for fault in [
        Fault::Cut,
        Fault::Hold,
        Fault::Swallow,
        Fault::SwallowAnswers,
        Fault::HoldWrites,
        Fault::Delay(Duration::from_millis(400)),
    ] {
        // Twice as long as a try takes.
        let lasts = Duration::from_secs(if fault == Fault::HoldWrites { 14 } else { 6 });
        assert_short(&format!("{fault:?}"), || {
            let slowest =
                storm_while(&service, || proxy.set(fault), lasts, || proxy.set(Fault::None));
            (slowest, recovery(&service))
        });
    }
}

fn healthz_answers_while_all_workers_wait_for_the_database(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = Service::start(&proxy.url(DATABASE), &["--workers", "1"]);
    // Where the machine stalls, once more.
    eventually(
        || "an answer long before the worker is free",
        || {
            recovery(&service);
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

fn nobody_waits_behind_what_only_reads(world: &World) {
    const READS: usize = 8;
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = Service::start(&proxy.url(DATABASE), &["--workers", "1"]);
    let answered = |reply: Reply| Some(Instant::now()).filter(|_| reply.status == 200);
    let first = || {
        proxy.set(Fault::None);
        recovery(&service);
        proxy.set(Fault::HoldWrites);
        thread::scope(|scope| {
            // The only worker has this one.
            scope.spawn(|| service.acquire(&Session::new(), json!({})));
            thread::sleep(Duration::from_millis(300));
            let read = || answered(service.get(&Session::new().path()));
            let reads = [(); READS].map(|()| scope.spawn(read));
            thread::sleep(Duration::from_millis(300));
            let acquire = || answered(service.acquire(&Session::new(), json!({})));
            let acquire = scope.spawn(acquire);
            thread::sleep(Duration::from_millis(300));
            proxy.set(Fault::Delay(Duration::from_millis(50)));
            let granted = acquire.join().unwrap()?;
            let reads = reads.map(|read| read.join().unwrap());
            let is_first = reads.into_iter().all(|read| read.is_some_and(|read| granted < read));
            is_first.then_some(())
        })
    };
    // Unless the machine stalls.
    eventually(|| "the acquire is answered first", first);
}

fn while_the_database_hangs_requests_are_refused_at_once(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = Service::start(&proxy.url(DATABASE), &[]);
    recovery(&service);
    proxy.set(Fault::Swallow);
    let refusal = || {
        let began = Instant::now();
        service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
        began.elapsed()
    };
    let first = refusal();
    let later = (0..5).map(|_| refusal()).min().unwrap();
    assert!(later * 3 < first, "{later:?}, at first {first:?}");
}

fn what_has_waited_for_long_is_not_tried(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = Service::start(&proxy.url(DATABASE), &["--workers", "1"]);
    let answers = || {
        recovery(&service);
        let session = Session::new();
        let owner_token = world.service.hold(&session);
        thread::scope(|scope| {
            let first_in_line =
                scope.spawn(|| service.acquire(&session, json!({"wait_ms": 20_000})));
            service.wait_for_waiters(&session, 1);
            proxy.set(Fault::HoldWrites);
            // The only worker has this one.
            scope.spawn(|| service.acquire(&Session::new(), json!({})));
            thread::sleep(Duration::from_millis(100));
            let behind = scope.spawn(|| service.acquire(&Session::new(), json!({})));
            // It is noticed at once that this line has its turn.
            assert_eq!(world.service.release(&session, &owner_token).status, 200);
            thread::sleep(Duration::from_millis(2_700));
            proxy.set(Fault::None);
            [behind, first_in_line].map(|late| late.join().unwrap().status)
        })
    };
    // Unless the machine stalls.
    eventually(|| "both are refused", || (answers() == [503, 503]).then_some(()));
}

fn connections_that_the_network_forgot_cost_one_timeout(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = Service::start(&proxy.url(DATABASE), &["--workers", "4"]);
    let is_served = || {
        // Four connections are open, and idle.
        recovery(&service);
        proxy.set(Fault::Delay(Duration::from_millis(100)));
        recovery(&service);
        proxy.set(Fault::None);
        assert!(proxy.connections() > 3, "{}", proxy.connections());
        proxy.forget_connections();
        // With a second one that is silent, its patience would be over.
        service.acquire(&Session::new(), json!({})).status == 200
    };
    // Where the machine stalls, once more.
    assert!((0..3).any(|_| is_served()), "it met several");
}

fn a_lease_that_nobody_could_be_told_of_belongs_to_the_token_in_the_503(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = Service::start(&proxy.url(DATABASE), &[]);
    let (session, refused) = untold(world, &proxy, &service);
    let token = refused.text("owner_token");
    world.service.acquire(&session, json!({})).assert_held();
    // Its worker asks another server, as it was told to.
    let again = world.service.acquire(&session, json!({"owner_token": token}));
    again.assert_granted("again");
    assert_eq!(world.service.renew(&session, &token, 30_000).status, 200);
    proxy.set(Fault::None);
    recovery(&service);
    assert_eq!(service.release(&session, &token).status, 200);
}

/// A session whose lease was written without anybody being told: the database's answer was lost,
/// and then the database was out of reach.
fn untold(world: &World, proxy: &Proxy, service: &Service) -> (Session, Reply) {
    for _ in 0..10 {
        let session = Session::new();
        // The write waits for this one: its answer is lost, and no other.
        let mut neighbour = world.insert_row(&session);
        let is_written = || world.stored(&session).is_some();
        let refused = thread::scope(|scope| {
            let asked = scope.spawn(|| service.acquire(&session, json!({})));
            world.wait_for_write(&session);
            proxy.set(Fault::SwallowAnswers);
            neighbour.query_drop("ROLLBACK").unwrap();
            let until = Instant::now() + Duration::from_secs(3);
            while !is_written() && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            proxy.set(Fault::Cut);
            asked.join().unwrap()
        });
        if is_written() && refused.json.get("owner_token").is_some() {
            assert_eq!(refused.status, 503, "{refused:?}");
            return (session, refused);
        }
        // The machine stalled: the wait for the lock was over before.
        proxy.set(Fault::None);
        recovery(service);
    }
    panic!("no answer was lost");
}

fn a_write_that_arrives_late_holds_nothing(world: &World) {
    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let service = Service::start(&proxy.url(DATABASE), &[]);
    let session = Session::new();
    proxy.set(Fault::HoldWrites);
    let token = OwnerToken::draw();
    let refused = service.acquire(&session, json!({"owner_token": token.secret()}));
    refused.assert_refused(503, "unavailable");
    // Now it arrives, at a connection that has been ended meanwhile.
    thread::sleep(Duration::from_secs(1));
    proxy.set(Fault::None);
    thread::sleep(Duration::from_millis(300));
    world.service.acquire(&session, json!({})).assert_granted("new");
}

/// A connection that was lost in the middle of a write is ended by its number. At the next server
/// that is somebody else's number.
fn a_failover_ends_nobody_elses_connection(world: &World) {
    let [first, second] = [(); 2].map(|()| DatabaseServer::start(world.engine, &[]));
    for server in [&first, &second] {
        migrate(&server.url(DATABASE));
    }
    let proxy = Proxy::start(([127, 0, 0, 1], first.port).into());
    let service = Service::start(&proxy.url(DATABASE), &[]);
    let mut others: Vec<_> = (0..60).map(|_| second.connect()).collect();
    proxy.set(Fault::HoldWrites);
    let refused = thread::scope(|scope| {
        let asked = scope.spawn(|| service.acquire(&Session::new(), json!({})));
        thread::sleep(Duration::from_millis(500));
        first.crash();
        asked.join().unwrap()
    });
    assert_eq!(refused.status, 503, "{refused:?}");
    proxy.lead_to(([127, 0, 0, 1], second.port).into());
    recovery(&service);
    for other in &mut others {
        other.query_drop("SELECT 1").unwrap();
    }
}

fn sigterm_answers_who_waits_for_the_database(world: &World) {
    // Another program's lock holds the first up, the network the second, and that one the third.
    let session = Session::new();
    world.store(&session, "garbage");
    let mut service = world.serve(&["--workers", "1"]);
    let neighbour = world.lock_row(&session);
    let reply = thread::scope(|scope| {
        let asked = scope.spawn(|| service.acquire(&session, json!({})));
        world.wait_for_write(&session);
        service.signal("-TERM");
        asked.join().unwrap()
    });
    reply.assert_refused(503, "unavailable");
    assert_eq!(service.wait(), Some(0));
    drop(neighbour);

    let proxy = Proxy::start(([127, 0, 0, 1], world.database.port).into());
    let mut service = Service::start(&proxy.url(DATABASE), &[]);
    recovery(&service);
    proxy.set(Fault::Swallow);
    let answers = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let ask = |path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            service.door.ask(ask("/v1/locks") + &ask("/healthz"))
        });
        thread::sleep(Duration::from_millis(300));
        service.signal("-TERM");
        asked.join().unwrap()
    });
    assert_eq!(answers.matches("HTTP/1.1 503 ").count(), 2, "{answers}");
    assert_eq!(service.wait(), Some(0));
}

/// A primary, and a replica that receives what it writes.
fn start_replicas(engine: Engine) -> (DatabaseServer, DatabaseServer) {
    let primary = DatabaseServer::start(engine, &["--log-bin=log", "--server-id=1"]);
    let replica = DatabaseServer::start(engine, &["--server-id=2"]);
    let (status, change, start) = match engine {
        Engine::MariaDb => (
            "SHOW MASTER STATUS",
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_USER = 'root', MASTER_PORT = {port}, \
             MASTER_LOG_FILE = '{file}', MASTER_LOG_POS = {position}",
            "START SLAVE",
        ),
        Engine::MySql => (
            "SHOW BINARY LOG STATUS",
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_USER = 'root', \
             SOURCE_PORT = {port}, SOURCE_LOG_FILE = '{file}', SOURCE_LOG_POS = {position}, \
             GET_SOURCE_PUBLIC_KEY = 1",
            "START REPLICA",
        ),
    };
    let mut status: mysql::Row = primary.connect().query_first(status).unwrap().unwrap();
    let file: String = status.take("File").unwrap();
    let position: u64 = status.take("Position").unwrap();
    let change = change
        .replace("{port}", &primary.port.to_string())
        .replace("{file}", &file)
        .replace("{position}", &position.to_string());
    let mut conn = replica.connect();
    conn.query_drop(change).unwrap();
    conn.query_drop(start).unwrap();
    migrate(&primary.url(DATABASE));
    (primary, replica)
}

/// Waits until the replica has received a lease, and stops it there, as one that lags does for as long
/// as it lags.
fn stop_behind(engine: Engine, replica: &DatabaseServer, session: &Session) {
    let mut conn = replica.connect();
    eventually(
        || "the replica has received it",
        || {
            let rows = format!("SELECT COUNT(*) FROM {DATABASE}.{TABLE} WHERE {session}");
            let count: Option<u64> = conn.query_first(rows).ok().flatten();
            (count == Some(1)).then_some(())
        },
    );
    let stop = match engine {
        Engine::MariaDb => "STOP SLAVE",
        Engine::MySql => "STOP REPLICA",
    };
    conn.query_drop(stop).unwrap();
}

/// Nothing that a client does can prevent it: this is what the README warns of.
fn an_asynchronous_failover_forgets_what_the_replica_had_not_received(world: &World) {
    let (primary, replica) = start_replicas(world.engine);
    let proxy = Proxy::start(([127, 0, 0, 1], primary.port).into());
    let service = Service::start(&proxy.url(DATABASE), &[]);
    let (received, missed) = (Session::new(), Session::new());
    let kept = service.hold(&received);
    stop_behind(world.engine, &replica, &received);
    let first = service.acquire(&missed, json!({}));
    first.assert_granted("new");

    primary.crash();
    proxy.lead_to(([127, 0, 0, 1], replica.port).into());
    recovery(&service);
    service.acquire(&received, json!({})).assert_held();
    assert_eq!(service.release(&received, &kept).status, 200);
    let second = service.acquire(&missed, json!({}));
    second.assert_granted("new");
    // Who writes with the fencing token is safe all the same, while the clocks agree.
    assert!(second.number("fencing_token") > first.number("fencing_token"));
}

fn a_read_only_replica_that_lags_behind_is_no_answer(world: &World) {
    let (primary, replica) = start_replicas(world.engine);
    let mut conn = primary.connect();
    // Root may write to a read-only server.
    conn.query_drop("CREATE USER bot@'127.0.0.1'").unwrap();
    conn.query_drop("GRANT SELECT, INSERT, UPDATE, DELETE ON session_lock.* TO bot@'127.0.0.1'")
        .unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], primary.port).into());
    let url = proxy.url(DATABASE).replace("root@", "bot@");
    let service = Service::start(&url, &[]);
    let (kept, ended, missed) = (Session::new(), Session::new(), Session::new());
    service.acquire(&kept, json!({"ttl_ms": 600_000}));
    let ended_token = service.hold_for(&ended, "m");
    stop_behind(world.engine, &replica, &ended);
    assert_eq!(service.release(&ended, &ended_token).status, 200);
    let token = service.hold_for(&missed, "m");
    let read_only = "SET GLOBAL read_only = 1";
    replica.connect().query_drop(read_only).unwrap();

    let lead_to = |server: &DatabaseServer| {
        proxy.lead_to(([127, 0, 0, 1], server.port).into());
        proxy.set(Fault::Cut);
        thread::sleep(Duration::from_millis(300));
        proxy.set(Fault::None);
        eventually(
            || "the database is reached",
            || (service.get("/healthz").status == 200).then_some(()),
        );
    };
    lead_to(&replica);
    for _ in 0..3 {
        for reply in [
            service.renew(&missed, &token, 30_000),
            service.commit(&missed, &token, "m"),
            service.release(&missed, &token),
            service.get(&missed.path()),
            service.get(&ended.path()),
            service.get("/v1/locks"),
            service.acquire(&missed, json!({})),
            service.acquire(&ended, json!({})),
            service.acquire(&kept, json!({})),
            service.post("/v1/release", ended.with(json!({"force": true}))),
            service.post("/v1/release", missed.with(json!({"force": true}))),
        ] {
            reply.assert_refused(503, "unavailable");
        }
    }
    lead_to(&primary);
    recovery(&service);
    assert_eq!(service.renew(&missed, &token, 30_000).status, 200);
    service.acquire(&missed, json!({})).assert_held();
    service.acquire(&ended, json!({})).assert_granted("new");
    assert_eq!(service.release(&missed, &token).status, 200);
}
