//! Failovers to another server, and replicas.

use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    DatabaseServer, Engine, Fault, Proxy, Service, Session, TABLE, World, eventually, migrate,
    tests,
};

tests![
    a_failover_ends_nobody_elses_connection,
    an_asynchronous_failover_forgets_what_the_replica_had_not_received,
    a_read_only_replica_that_lags_behind_is_no_answer,
    a_failover_with_old_connections_costs_at_most_one_request,
];

/// A connection that was lost in the middle of a write is ended with `KILL` and its id. On another
/// server, that id may belong to another program's connection.
fn a_failover_ends_nobody_elses_connection(world: &World) {
    let [first, second] = [(); 2].map(|()| DatabaseServer::start_migrated(world.engine, &[]));
    let proxy = Proxy::start(first.address());
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
    proxy.redirect(second.address());
    service.recovery();
    for other in &mut others {
        other.query_drop("SELECT 1").unwrap();
    }
}

/// Starts a primary, and a replica of it.
fn start_replicas(engine: Engine) -> (DatabaseServer, DatabaseServer) {
    let primary = DatabaseServer::start(engine, &["--log-bin=log", "--server-id=1"]);
    let replica = DatabaseServer::start(engine, &["--server-id=2"]);
    let (status, change, start) = match engine {
        Engine::MariaDb(_) => (
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

/// Waits until the replica has received a lease, and stops the replication there, so that the
/// replica lags behind.
fn stop_replication_after(engine: Engine, replica: &DatabaseServer, session: &Session) {
    let mut conn = replica.connect();
    eventually(
        || "the replica has received the lease",
        || {
            let rows = format!("SELECT COUNT(*) FROM {DATABASE}.{TABLE} WHERE {session}");
            let count: Option<u64> = conn.query_first(rows).ok().flatten();
            (count == Some(1)).then_some(())
        },
    );
    let stop = match engine {
        Engine::MariaDb(_) => "STOP SLAVE",
        Engine::MySql => "STOP REPLICA",
    };
    conn.query_drop(stop).unwrap();
}

/// A client cannot prevent this; docs/failures.md warns of it.
fn an_asynchronous_failover_forgets_what_the_replica_had_not_received(world: &World) {
    let (primary, replica) = start_replicas(world.engine);
    let proxy = Proxy::start(primary.address());
    let service = Service::start(&proxy.url(DATABASE), &[]);
    let (received, missed) = (Session::new(), Session::new());
    let kept = service.hold(&received);
    stop_replication_after(world.engine, &replica, &received);
    let first = service.acquire(&missed, json!({}));
    first.assert_granted("new");

    primary.crash();
    proxy.redirect(replica.address());
    service.recovery();
    service.acquire(&received, json!({})).assert_held();
    assert_eq!(service.release(&received, &kept).status, 200);
    let second = service.acquire(&missed, json!({}));
    second.assert_granted("new");
    // Writes that check the fencing token are still safe, while the clocks agree.
    assert!(second.number("fencing_token") > first.number("fencing_token"));
}

fn a_read_only_replica_that_lags_behind_is_no_answer(world: &World) {
    let (primary, replica) = start_replicas(world.engine);
    primary.create_bot();
    let proxy = Proxy::start(primary.address());
    // A superuser could write to the replica.
    let superusers = Service::start(&proxy.url(DATABASE), &[]);
    let service = Service::start(&proxy.url(DATABASE).replace("root@", "bot@"), &[]);
    let (kept, ended, missed) = (Session::new(), Session::new(), Session::new());
    service.acquire(&kept, json!({"ttl_ms": 600_000}));
    let ended_token = service.hold_for(&ended, "m");
    stop_replication_after(world.engine, &replica, &ended);
    assert_eq!(service.release(&ended, &ended_token).status, 200);
    let token = service.hold_for(&missed, "m");
    let read_only = "SET GLOBAL read_only = 1";
    replica.connect().query_drop(read_only).unwrap();

    let redirect = |server: &DatabaseServer| {
        proxy.redirect(server.address());
        proxy.set(Fault::Reset);
        thread::sleep(Duration::from_millis(300));
        proxy.set(Fault::None);
        eventually(
            || "the database is reached",
            || {
                let answers = |service: &Service| service.get("/healthz").status == 200;
                (answers(&service) && answers(&superusers)).then_some(())
            },
        );
    };
    redirect(&replica);
    for service in [&service, &superusers, &service, &superusers] {
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
            service.force(&ended, json!({})),
            service.force(&missed, json!({})),
        ] {
            reply.assert_refused(503, "unavailable");
        }
    }
    redirect(&primary);
    service.recovery();
    assert_eq!(service.renew(&missed, &token, 30_000).status, 200);
    service.acquire(&missed, json!({})).assert_held();
    service.acquire(&ended, json!({})).assert_granted("new");
    assert_eq!(service.release(&missed, &token).status, 200);
}

/// The address leads to the new primary, but the service's connections are still to the old one.
fn a_failover_with_old_connections_costs_at_most_one_request(world: &World) {
    let [first, second] = [(); 2].map(|()| DatabaseServer::start_migrated(world.engine, &[]));
    let proxy = Proxy::start(first.address());
    for server in [&first, &second] {
        server.create_bot();
    }
    let many = ["--workers", "16"];
    let superusers = Service::start(&proxy.url(DATABASE), &many);
    let service = Service::start(&proxy.url(DATABASE).replace("root@", "bot@"), &many);
    // The network is slow while these requests are sent one after the other, so that each has a
    // connection.
    proxy.set(Fault::Delay(Duration::from_millis(10)));
    let at_once = |service: &Service| -> Vec<u16> {
        thread::scope(|scope| {
            let asked = [(); 20].map(|()| {
                thread::sleep(Duration::from_millis(4));
                scope.spawn(|| service.acquire(&Session::new(), json!({})).status)
            });
            asked.map(|asked| asked.join().unwrap()).to_vec()
        })
    };
    at_once(&service);
    at_once(&superusers);
    first.connect().query_drop("SET GLOBAL read_only = 1").unwrap();
    let rows = || -> Option<u64> {
        let sql = format!("SELECT COUNT(*) FROM {DATABASE}.{TABLE}");
        first.connect().query_first(sql).unwrap()
    };
    let before = rows();
    // The other service has not detected the failover yet.
    superusers.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
    superusers.get("/readyz").assert_refused(503, "unavailable");
    assert_eq!(rows(), before, "leases of a read-only server");
    proxy.redirect_new(second.address());
    // How soon the service recovers.
    thread::sleep(Duration::from_secs(2));
    for service in [&service, &superusers] {
        let requests = at_once(service);
        let refused = requests.iter().filter(|status| **status != 200).count();
        assert!(refused <= 1, "{requests:?}");
        assert_eq!(service.get("/readyz").status, 200);
    }
}
