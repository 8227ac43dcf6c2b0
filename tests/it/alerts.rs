//! The alerts for Prometheus, on the metrics of real services.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{DatabaseServer, Service, Session, TABLE, World, binary, eventually, tests};

tests![
    the_alerts_fire_and_stop_in_time,
    no_alert_fires_on_a_healthy_service,
    a_database_that_is_gone_pages_once,
    a_table_that_is_gone_pages_once,
    workers_that_overrun_fire_an_alert,
    errors_of_the_database_fire_an_alert,
    ids_that_run_out_fire_an_alert,
    clocks_apart_fire_an_alert,
    slow_releases_fire_an_alert,
];

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/session-lock.rules.yml");

/// How long the scraped changes are repeated, in minutes: longer than any alert needs.
const MINUTES: u64 = 20;

fn promtool(args: &[&str]) -> Output {
    let promtool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/promtool");
    let output = Command::new(promtool).args(args).output();
    output.expect("promtool is there: tests/install promtool")
}

fn the_alerts_fire_and_stop_in_time(_: &World) {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alerts.yml");
    let tested = promtool(&["test", "rules", tests]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
}

/// The series of `/metrics`: each with its value, and whether it is a counter.
fn scrape(service: &Service) -> BTreeMap<String, (f64, bool)> {
    let text = service.text("/metrics");
    let mut grows = false;
    let mut series = BTreeMap::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            grows = !kind.ends_with(" gauge");
        } else if let Some((name, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))
        {
            series.insert(name.to_owned(), (value.parse().unwrap(), grows));
        }
    }
    series
}

/// Asserts which alerts fire if the effect of `act`, seen between two scrapes, is repeated each
/// minute.
fn assert_fires(service: &Service, act: impl FnOnce(), alerts: &[&str]) {
    let before = scrape(service);
    act();
    let after = scrape(service);
    let series = after.iter().map(|(name, (value, grows))| {
        // A route has no series before its first request.
        let first = if *grows { before.get(name).map_or(0.0, |(value, _)| *value) } else { *value };
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let series = format!("{name}{{job=\"session-lock\",instance=\"a\",{labels}");
        json!({"series": series, "values": format!("{first}+{}x{MINUTES}", value - first)})
    });
    let up = json!({"series": "up{job=\"session-lock\",instance=\"a\"}", "values": format!("1x{MINUTES}")});
    let expected = alerts
        .iter()
        .map(|alert| json!({"labels": format!("{{alertname=\"{alert}\"}}"), "value": 1}));
    let test = json!({
        "rule_files": [RULES],
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "1m",
            "input_series": series.chain([up]).collect::<Vec<_>>(),
            "promql_expr_test": [{
                "expr": "count by (alertname) (ALERTS{alertstate=\"firing\"})",
                "eval_time": format!("{MINUTES}m"),
                "exp_samples": expected.collect::<Vec<_>>(),
            }],
        }],
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yml");
    // JSON is YAML.
    fs::write(&file, test.to_string()).unwrap();
    let tested = promtool(&["test", "rules", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&tested.stdout) + String::from_utf8_lossy(&tested.stderr);
    assert!(tested.status.success(), "{alerts:?}: {said}");
}

/// Acquires and releases leases.
fn work(service: &Service, leases: u64) {
    for _ in 0..leases {
        let session = Session::new();
        let token = service.hold(&session);
        assert_eq!(service.release(&session, &token).status, 200);
    }
}

fn no_alert_fires_on_a_healthy_service(world: &World) {
    let (_schema, service) = world.own_service(&[]);
    let act = || {
        work(&service, 20);
        let session = Session::new();
        let token = service.hold_for(&session, "m1");
        service.acquire(&session, json!({})).assert_held();
        service.commit(&session, &token, "m1");
        service.renew(&session, &token, 60_000);
        service.force(&session, json!({}));
        service.release(&session, &token);
        service.acquire(&session, json!({"ttl_ms": 0})).assert_refused(400, "invalid_request");
    };
    assert_fires(&service, act, &[]);
}

fn a_database_that_is_gone_pages_once(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &[]);
    let service = Service::start(&server.url(DATABASE), &[]);
    work(&service, 3);
    let act = || {
        server.crash();
        for _ in 0..20 {
            let session = Session::new();
            service.acquire(&session, json!({})).assert_refused(503, "unavailable");
            service.release(&session, "48210000000000000007").assert_refused(503, "unavailable");
        }
        service.wait_for_line("the database cannot be used");
    };
    assert_fires(&service, act, &["SessionLockUnavailable"]);
}

fn workers_that_overrun_fire_an_alert(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let act = || {
        work(&service, 20);
        for _ in 0..3 {
            let session = Session::new();
            service.hold(&session);
            schema.age(&session, 31);
            service.acquire(&session, json!({})).assert_granted("takeover");
        }
    };
    assert_fires(&service, act, &["SessionLockOverruns"]);
}

/// Loses connections, while each request finally succeeds.
fn errors_of_the_database_fire_an_alert(world: &World) {
    const LOST: &str = "session_lock_database_errors_total{kind=\"lost\"}";
    let (schema, service) = world.own_service(&[]);
    let lose_connection = || {
        let session = Session::new();
        schema.store(&session, "'2020-01-01 00:00:00'");
        let mut other_program = schema.connect();
        other_program.query_drop("START TRANSACTION").unwrap();
        let sql = format!("SELECT * FROM {TABLE} WHERE {session} FOR UPDATE");
        other_program.query_drop(sql).unwrap();
        thread::scope(|scope| {
            let asked = scope.spawn(|| service.acquire(&session, json!({})));
            thread::sleep(Duration::from_millis(200));
            schema.kill_connections();
            drop(other_program);
            asked.join().unwrap().assert_granted("takeover");
        });
    };
    // More than three a minute.
    let act = || {
        while scrape(&service)[LOST].0 < 5.0 {
            lose_connection();
        }
    };
    assert_fires(&service, act, &["SessionLockDatabaseErrors"]);
}

/// A missing table makes the service unavailable.
fn a_table_that_is_gone_pages_once(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let act = || {
        schema.sql(&format!("ALTER TABLE {TABLE} RENAME TO gone"));
        for _ in 0..20 {
            service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
        }
    };
    assert_fires(&service, act, &["SessionLockUnavailable"]);
}

fn ids_that_run_out_fire_an_alert(world: &World) {
    for (next_id, used, alert) in [
        (1_500_000_000_u64, 0.6, "SessionLockIdsHalfUsed"),
        (2_100_000_000, 0.9, "SessionLockIdsNearlyUsed"),
    ] {
        let schema = world.own_table();
        schema.sql(&format!("ALTER TABLE {TABLE} AUTO_INCREMENT = {next_id}"));
        let service = Service::start(&schema.url(), &[]);
        eventually(
            || "the share of used ids is measured",
            || (scrape(&service)["session_lock_ids_used_ratio"].0 > used).then_some(()),
        );
        assert_fires(&service, || (), &[alert]);
    }
}

fn clocks_apart_fire_an_alert(world: &World) {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    let schema = world.own_table();
    let service = Service::spawn(
        Command::new(binary())
            .args(["serve", "--database-url", &schema.url()])
            .env("LD_PRELOAD", LIBRARY)
            .env("FAKETIME", "-9s")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    );
    service.wait_until_ready();
    eventually(
        || "the clocks are compared",
        || (scrape(&service)["session_lock_clock_difference_seconds"].0 > 8.0).then_some(()),
    );
    assert_fires(&service, || (), &["SessionLockClockApart"]);
}

fn slow_releases_fire_an_alert(world: &World) {
    /// Below the database's lock wait of 1 s, above 0.5 s.
    const LOCKED: Duration = Duration::from_millis(750);
    // A sweep of other tests' rows would count as overruns.
    let world = &World::start(world.engine);
    let service = &world.service;
    let act = || {
        let session = Session::new();
        let token = service.hold(&session);
        let other_program = world.lock_row(&session);
        thread::scope(|scope| {
            scope.spawn(|| service.release(&session, &token));
            thread::sleep(LOCKED);
            drop(other_program);
        });
    };
    assert_fires(service, act, &["SessionLockSlow"]);
}
