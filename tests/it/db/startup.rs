//! Databases that are not ready when the service starts.

use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    DatabaseServer, Service, Session, TIMEOUT, World, assert_says, eventually, free_port, migrate,
    run_check, tests,
};

tests![a_database_that_is_not_there_yet_is_waited_for, a_read_only_database_is_waited_for,];

fn a_database_that_is_not_there_yet_is_waited_for(world: &World) {
    let port = free_port();
    let url = format!("mysql://root@127.0.0.1:{port}/{DATABASE}");
    let mut service = Service::start_unready(&url, &[]);
    service.wait_for_line("not ready: the database cannot be reached");
    assert_eq!(service.get("/healthz").status, 200);
    for reply in [
        service.get("/readyz"),
        service.acquire(&Session::new(), json!({})),
        service.acquire(&Session::new(), json!({"message_id": "m"})),
    ] {
        reply.assert_refused(503, "unavailable");
        assert_eq!(reply.retry_after_s, Some(1));
    }
    let has_metric =
        |service: &Service, wanted| service.text("/metrics").lines().any(|line| line == wanted);
    assert!(has_metric(&service, "session_lock_database_up 0"));
    let _server = DatabaseServer::start_on(world.engine, port, &[]);
    // Without this, the service may find an empty schema, and end.
    migrate(&url);
    let until = Instant::now() + TIMEOUT;
    while service.log().last().is_some_and(|line| line != "INFO  ready") && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
        if service.log().iter().any(|line| line.starts_with("problem")) {
            assert_eq!(service.wait(), Some(1));
            service = Service::start(&url, &[]);
        }
    }
    assert_eq!(service.get("/readyz").status, 200);
    assert!(has_metric(&service, "session_lock_database_up 1"));
    service.hold(&Session::new());
}

fn a_read_only_database_is_waited_for(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &[]);
    let root = |sql: &str| server.connect().query_drop(sql).unwrap();
    let url = server.create_bot();
    root("SET GLOBAL read_only = 1");
    let service = Service::start_unready(&url, &[]);
    service.wait_for_line("not ready: the database is read-only");
    service.get("/readyz").assert_refused(503, "unavailable");
    assert_says(&run_check(&url).out, &["problem  writes", "read-only"]);
    root("SET GLOBAL read_only = 0");
    service.wait_until_ready();
    let session = Session::new();
    let owner_token = service.hold(&session);
    root("SET GLOBAL read_only = 1");
    service.get("/readyz").assert_refused(503, "unavailable");
    service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
    service.release(&session, &owner_token).assert_refused(503, "unavailable");
    root("SET GLOBAL read_only = 0");
    eventually(|| "it is ready", || (service.get("/readyz").status == 200).then_some(()));
    assert_eq!(service.release(&session, &owner_token).status, 200);
}
