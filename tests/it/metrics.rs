//! What `/metrics` counts and measures.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::world::{Service, Session, TABLE, TIMEOUT, World, eventually, tests};

tests![
    every_outcome_is_counted,
    promtool_accepts_the_metrics_and_they_name_no_session,
    rules_and_dashboard_use_metrics_that_exist,
    the_share_of_used_ids_is_measured,
    the_leases_that_hold_are_counted,
    the_process_is_measured,
];

/// A value of `/metrics`.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

fn every_outcome_is_counted(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let session = Session::new();
    let token = service.hold_for(&session, "m1");
    service.acquire(&session, json!({})).assert_held();
    service.acquire(&session, json!({"owner_token": token})).assert_granted("again");
    service.renew(&session, &token, 30_000);
    service.renew(&session, "00000000000000000000", 30_000);
    service.commit(&session, &token, "m1");
    service.commit(&session, &token, "m1");
    service.commit(&session, "00000000000000000000", "m1");
    service.commit(&session, "00000000000000000000", "m2");
    service.acquire(&session, json!({"message_id": "m1"}));
    service.release(&session, &token);
    service.release(&session, &token);
    service.hold(&session);
    service.force(&session, json!({}));
    service.force(&session, json!({}));
    let short = Session::new();
    service.acquire(&short, json!({"ttl_ms": 3_000}));
    service.acquire(&short, json!({"wait_ms": 10_000})).assert_granted("takeover");
    // The takeover of an old program's row is not an overrun.
    let old = Session::new();
    schema.store(&old, "'2020-01-01 00:00:00'");
    service.acquire(&old, json!({})).assert_granted("takeover");
    let text = service.text("/metrics");
    for (name, outcomes) in [
        ("acquires", &["new", "takeover", "again", "held", "duplicate"][..]),
        ("renews", &["renewed", "lost"]),
        ("commits", &["new", "again", "lost", "duplicate"]),
        ("releases", &["released", "lost", "forced", "not_held"]),
    ] {
        for outcome in outcomes {
            let count =
                metric(&text, &format!("session_lock_{name}_total{{outcome=\"{outcome}\"}}"));
            let expected = match (name, *outcome) {
                ("acquires", "new") => 3.0,
                ("acquires", "takeover") => 2.0,
                _ => 1.0,
            };
            assert!((count - expected).abs() < 0.1, "{name} {outcome}: {count}");
        }
    }
    assert!((metric(&text, "session_lock_overruns_total") - 1.0).abs() < 0.1);
    assert!((metric(&text, "session_lock_hold_seconds_count") - 1.0).abs() < 0.1);
    assert!(metric(&text, "session_lock_wait_seconds_sum") > 0.5);
    assert!(metric(&text, "session_lock_ids_used_ratio") < 0.1);
    // The service sends no statement that only the other database supports.
    let refused = "session_lock_database_errors_total{kind=\"refused\"}";
    assert!(metric(&text, refused) < 0.1, "{text}");
    assert!(metric(&text, "session_lock_clock_difference_seconds").abs() < 5.0);
    assert!(metric(&text, "session_lock_request_seconds_count{route=\"acquire\"}") > 6.0);
}

fn promtool_accepts_the_metrics_and_they_name_no_session(world: &World) {
    let (_schema, service) = world.own_service(&[]);
    let session = Session::new();
    service.hold(&session);
    let text = service.text("/metrics");
    assert!(!text.contains(&session.prospect) && !text.contains(&session.device));
    let promtool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/promtool");
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there: tests/install promtool");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{text}");
}

fn rules_and_dashboard_use_metrics_that_exist(world: &World) {
    // A route has no series before its first request.
    world.service.hold(&Session::new());
    let text = world.service.text("/metrics");
    for file in ["session-lock.rules.yml", "session-lock.grafana.json"] {
        let path = format!("{}/systemd/{file}", env!("CARGO_MANIFEST_DIR"));
        let content = fs::read_to_string(path).unwrap();
        let words = content.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let is_metric =
            |word: &&str| ["session_lock_", "process_"].iter().any(|p| word.starts_with(p));
        let used: HashSet<_> = words.filter(is_metric).collect();
        assert!(used.len() >= 7, "{file}: {used:?}");
        for name in used {
            let exists = ["{", " "].iter().any(|end| text.contains(&format!("\n{name}{end}")));
            assert!(exists, "{file}: {name}");
        }
    }
}

fn the_leases_that_hold_are_counted(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let [first, second, expired, old, stale] = [(); 5].map(|()| Session::new());
    for session in [&first, &second, &expired] {
        service.hold(session);
    }
    schema.age(&expired, 31);
    schema.store(&old, "NOW()");
    schema.store(&stale, "'2020-01-01 00:00:00'");
    // More than one page of rows.
    schema.fill(1_000);
    drop(service);
    // A server sweeps when it starts, and every minute.
    let service = Service::start(&schema.url(), &[]);
    eventually(
        || "two leases and the rows of old programs are counted",
        || {
            let held = metric(&service.text("/metrics"), "session_lock_leases_held");
            ((held - 1_003.0).abs() < 0.1).then_some(())
        },
    );
}

fn the_process_is_measured(world: &World) {
    let service = world.serve(&[]);
    let text = service.text("/metrics");
    let metric = |name: &str| metric(&text, &format!("process_{name}"));
    let resident_kib = f64::from(u32::try_from(service.resident_kib()).unwrap());
    let share = metric("resident_memory_bytes") / 1_024.0 / resident_kib;
    assert!((0.5..2.0).contains(&share), "{share}");
    assert!(metric("virtual_memory_bytes") > metric("resident_memory_bytes"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - metric("start_time_seconds");
    assert!((-2.0..TIMEOUT.as_secs_f64()).contains(&age), "{age}");
    for (name, folder) in [("threads", "task"), ("open_fds", "fd")] {
        let entries = fs::read_dir(format!("/proc/{}/{folder}", service.pid())).unwrap().count();
        let entries = f64::from(u32::try_from(entries).unwrap());
        // Connections come and go.
        assert!((metric(name) - entries).abs() < 10.0, "{name}: {} {entries}", metric(name));
    }
    assert!(metric("max_fds") > metric("open_fds"));
    assert!((0.0..60.0).contains(&metric("cpu_seconds_total")));
}

fn the_share_of_used_ids_is_measured(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!("ALTER TABLE {TABLE} AUTO_INCREMENT = 1073741824"));
    let service = Service::start(&schema.url(), &[]);
    eventually(
        || "half of the ids are used",
        || {
            let used = metric(&service.text("/metrics"), "session_lock_ids_used_ratio");
            (0.4..0.6).contains(&used).then_some(())
        },
    );
}
