//! What `/metrics` counts and measures.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::world::{Service, Session, TABLE, World, eventually, tests};

tests![
    every_outcome_is_counted,
    promtool_accepts_the_metrics_and_they_name_no_session,
    the_share_of_used_ids_is_measured,
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
    // The takeover of an old program's row is no overrun.
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
    // The service sends no statement that only the other of the two databases knows.
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
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/session-lock.rules.yml");
    let checked = Command::new(promtool).args(["check", "rules", rules]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    // An alert on a metric that does not exist would never fire.
    let rules = fs::read_to_string(rules).unwrap();
    for name in rules.split(|c: char| !c.is_ascii_lowercase() && c != '_') {
        let is_ours = name.starts_with("session_lock_");
        assert!(!is_ours || text.contains(&format!("\n{name}")), "{name}");
    }
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
