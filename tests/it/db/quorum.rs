//! A MySQL group without its quorum, which answers reads and waits for ever in COMMIT.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    Group, Service, Session, SetOnDrop, Test, assert_says, eventually, migrate, run_check, tests,
};

tests![
    as Test<fn()>;
    a_group_without_a_quorum_makes_the_service_unavailable_and_few_connections,
];

/// Longer than the service tries to end a connection that it cannot end.
const WITHOUT_QUORUM: Duration = Duration::from_secs(75);

/// The limit of docs/operations.md for this number of workers, the service's inspections, and the
/// connection of `check`.
const WORKERS: u64 = 3;
const CONNECTIONS_MAX: u64 = WORKERS + 4 + 1 + 2 + 1;

fn a_group_without_a_quorum_makes_the_service_unavailable_and_few_connections() {
    let group = Group::start(3, &[]);
    let primary = &group.nodes[0];
    let url = primary.url(DATABASE);
    migrate(&url);
    let service = Service::start(&url, &["--workers", &WORKERS.to_string()]);
    service.hold(&Session::new());
    group.lose_quorum();
    let connections = || {
        let sql =
            format!("SELECT COUNT(*) FROM performance_schema.processlist WHERE db = '{DATABASE}'");
        let mut conn = primary.connect();
        // Sometimes, one more is a health check of the service.
        let counts = (0..10).map(|_| {
            thread::sleep(Duration::from_millis(100));
            conn.query_first::<u64, _>(&sql).unwrap().unwrap()
        });
        counts.min().unwrap()
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = SetOnDrop(&done);
        for _ in 0..8 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let reply = service.acquire(&Session::new(), json!({}));
                    reply.assert_refused(503, "unavailable");
                    thread::sleep(Duration::from_millis(100));
                }
            });
        }
        let began = Instant::now();
        eventually(|| "it is not ready", || (service.get("/readyz").status == 503).then_some(()));
        service.wait_for_line("although they were killed");
        let printed = run_check(&url);
        assert_eq!(printed.status, Some(1), "{printed:?}");
        assert_says(&printed.out, &["problem  writes", "quorum"]);
        let before = connections();
        assert!(before <= CONNECTIONS_MAX, "{before} connections");
        while began.elapsed() < WITHOUT_QUORUM {
            service.get("/readyz").assert_refused(503, "unavailable");
            thread::sleep(Duration::from_millis(500));
        }
        let after = connections();
        assert!(after <= before, "{before} connections became {after}");
    });
}
