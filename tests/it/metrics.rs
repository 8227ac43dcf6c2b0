//! What can be seen from outside: metrics, the description of the interface, the page.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{
    DatabaseServer, Schema, Service, Session, TABLE, World, eventually, migrate, tests,
};

tests![
    every_outcome_is_counted,
    the_metrics_please_promtool_and_name_no_session,
    the_share_of_used_ids_is_measured,
    the_page_needs_no_token_and_loads_nothing,
    the_interface_is_described,
    a_page_of_another_site_may_not_ask,
    the_page_shows_what_is_held_and_forces_a_release,
    the_page_says_that_the_database_is_gone,
    the_page_asks_for_the_token,
];

/// A value of `/metrics`.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

fn own_service(world: &World, flags: &[&str]) -> Service {
    serve_on(&world.schema(), flags)
}

fn serve_on(schema: &Schema, flags: &[&str]) -> Service {
    migrate(&schema.url());
    Service::start(&schema.url(), flags)
}

fn every_outcome_is_counted(world: &World) {
    let schema = world.schema();
    let service = serve_on(&schema, &[]);
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
    let force = session.with(json!({"force": true}));
    service.hold(&session);
    service.post("/v1/release", &force);
    service.post("/v1/release", &force);
    let short = Session::new();
    service.acquire(&short, json!({"ttl_ms": 3_000}));
    service.acquire(&short, json!({"wait_ms": 10_000})).assert_granted("takeover");
    // Old programs leave their rows: nobody overran.
    let old = Session::new();
    schema.sql(&format!(
        "INSERT INTO {TABLE} (id_device, id_prospect, timestamp) \
         VALUES ('{}', '{}', '2020-01-01 00:00:00')",
        old.device, old.prospect
    ));
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
    // All was well: nothing is asked of a database that only the other one knows.
    let refused = "session_lock_database_errors_total{kind=\"refused\"}";
    assert!(metric(&text, refused) < 0.1, "{text}");
    assert!(metric(&text, "session_lock_clock_difference_seconds").abs() < 5.0);
    assert!(metric(&text, "session_lock_request_seconds_count{route=\"acquire\"}") > 6.0);
}

fn the_share_of_used_ids_is_measured(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!("ALTER TABLE {TABLE} AUTO_INCREMENT = 1073741824"));
    let service = Service::start(&schema.url(), &[]);
    eventually(
        || "half of them",
        || {
            let used = metric(&service.text("/metrics"), "session_lock_ids_used_ratio");
            (0.4..0.6).contains(&used).then_some(())
        },
    );
}

fn the_metrics_please_promtool_and_name_no_session(world: &World) {
    let service = own_service(world, &[]);
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
    // An alert on a metric that is not there never fires.
    let rules = std::fs::read_to_string(rules).unwrap();
    for name in rules.split(|c: char| !c.is_ascii_lowercase() && c != '_') {
        let is_ours = name.starts_with("session_lock_");
        assert!(!is_ours || text.contains(&format!("\n{name}")), "{name}");
    }
}

fn the_page_needs_no_token_and_loads_nothing(world: &World) {
    let service = own_service(world, &["--api-token", "t0ken"]);
    assert_eq!(service.get("/metrics").status, 401);
    assert_eq!(service.get("/openapi.json").status, 401);
    let answer = service.door.ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/html"), "{head}");
    assert!(head.contains("Content-Security-Policy: default-src 'none'"), "{head}");
    for outside in ["http://", "https://", "src=\"/", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

fn the_interface_is_described(world: &World) {
    let described = world.service.get("/openapi.json");
    assert_eq!(described.status, 200);
    let Value::Object(paths) = &described.json["paths"] else { panic!("{:?}", described.json) };
    let mut paths: Vec<_> = paths.keys().map(String::as_str).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "/",
            "/healthz",
            "/metrics",
            "/openapi.json",
            "/readyz",
            "/v1/acquire",
            "/v1/commit",
            "/v1/locks",
            "/v1/locks/{id_device}/{id_prospect}",
            "/v1/release",
            "/v1/renew",
        ]
    );
}

fn a_page_of_another_site_may_not_ask(world: &World) {
    let session = Session::new();
    let token = world.service.hold(&session);
    let body = session.with(json!({"force": true})).to_string();
    let post = |origin: &str| {
        world.service.door.ask(format!(
            "POST /v1/release HTTP/1.1\r\nHost: localhost:7099\r\nOrigin: {origin}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    for elsewhere in ["https://evil.example", "null", "http://localhost:7098", "localhost:7099"] {
        let refused = post(elsewhere);
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("Origin"), "{refused}");
    }
    assert_eq!(world.service.renew(&session, &token, 30_000).status, 200);
    let allowed = post("http://localhost:7099");
    assert!(allowed.starts_with("HTTP/1.1 200 "), "{allowed}");
}

/// Looks at the page with a real browser, which must find what this state is about; its pictures are
/// in target/page.
fn look(world: &World, service: &Service, state: &[&str]) {
    let pictures = format!("{}/target/page/{}", env!("CARGO_MANIFEST_DIR"), world.engine.name());
    std::fs::create_dir_all(&pictures).unwrap();
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page.mjs"))
        .args([&format!("http://{}", service.address), &pictures])
        .args(state)
        .output()
        .expect("node is installed: tests/install languages chromium");
    assert!(output.status.success(), "{state:?}: {output:?}");
}

fn the_page_shows_what_is_held_and_forces_a_release(world: &World) {
    let service = own_service(world, &[]);
    look(world, &service, &["empty"]);
    let markup = Session { device: "<img src=x onerror=alert(1)>".to_owned(), ..Session::new() };
    let sessions: Vec<_> = (0..199).map(|_| Session::new()).chain([markup]).collect();
    for session in &sessions {
        service.acquire(session, json!({"ttl_ms": 600_000})).assert_granted("new");
    }
    look(world, &service, &["busy"]);
    std::thread::scope(|scope| {
        scope.spawn(|| service.acquire(&sessions[0], json!({"wait_ms": 25_000})));
        service.wait_for_waiters(&sessions[0], 1);
        look(world, &service, &["waiting"]);
        service.post("/v1/release", sessions[0].with(json!({"force": true})));
    });
    let Session { device, prospect } = &sessions[7];
    look(world, &service, &["force", device, prospect]);
    assert_eq!(service.get(&sessions[7].path()).json["held"], false);
    assert_eq!(service.get(&sessions[8].path()).json["held"], true);
}

fn the_page_says_that_the_database_is_gone(world: &World) {
    let server = DatabaseServer::start(world.engine, &[]);
    let url = server.url("session_lock");
    migrate(&url);
    let service = Service::start(&url, &[]);
    service.hold(&Session::new());
    drop(server);
    look(world, &service, &["gone"]);
}

fn the_page_asks_for_the_token(world: &World) {
    let service = own_service(world, &["--api-token", "t0ken"]);
    look(world, &service, &["token", "t0ken"]);
}
