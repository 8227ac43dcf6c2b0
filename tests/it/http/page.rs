//! The operator's page, in a real browser.

use std::process::Command;
use std::{fs, thread};

use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{CLOSE, DatabaseServer, Service, Session, World, raw_get, tests};

tests![
    the_page_needs_no_token_and_loads_nothing,
    the_page_shows_what_is_held_and_forces_a_release,
    the_page_shows_the_last_ten_minutes,
    the_page_says_that_the_database_is_gone,
    the_page_asks_for_the_token,
];

fn the_page_needs_no_token_and_loads_nothing(world: &World) {
    let (_schema, service) = world.own_service(&["--api-token", "t0ken"]);
    assert_eq!(service.get("/metrics").status, 401);
    assert_eq!(service.get("/openapi.json").status, 401);
    let answer = service.endpoint.ask(raw_get("/", CLOSE));
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/html"), "{head}");
    assert!(head.contains("Content-Security-Policy: default-src 'none'"), "{head}");
    for outside in ["http://", "https://", "src=\"/", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// Opens the page in a real browser, which checks what it shows in this state, and stores pictures
/// in target/page.
fn check_page(world: &World, service: &Service, state: &[&str]) {
    let pictures = format!("{}/target/page/{}", env!("CARGO_MANIFEST_DIR"), world.engine.name());
    fs::create_dir_all(&pictures).unwrap();
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page.mjs"))
        .args([&service.http_url(), &pictures])
        .args(state)
        .output()
        .expect("node is installed: tests/install languages chromium");
    assert!(output.status.success(), "{state:?}: {output:?}");
}

fn the_page_shows_what_is_held_and_forces_a_release(world: &World) {
    let (_schema, service) = world.own_service(&[]);
    check_page(world, &service, &["empty"]);
    let markup = Session { device: "<img src=x onerror=alert(1)>".to_owned(), ..Session::new() };
    let sessions: Vec<_> = (0..199).map(|_| Session::new()).chain([markup]).collect();
    for session in &sessions {
        service.acquire(session, json!({"ttl_ms": 600_000})).assert_granted("new");
    }
    check_page(world, &service, &["busy"]);
    thread::scope(|scope| {
        scope.spawn(|| service.acquire(&sessions[0], json!({"wait_ms": 25_000})));
        service.wait_for_waiters(&sessions[0], 1);
        check_page(world, &service, &["waiting"]);
        service.force(&sessions[0], json!({}));
    });
    let Session { device, prospect } = &sessions[7];
    check_page(world, &service, &["force", device, prospect]);
    assert_eq!(service.get(&sessions[7].path()).json["held"], false);
    assert_eq!(service.get(&sessions[8].path()).json["held"], true);
}

/// What happened before the page was opened.
fn the_page_shows_the_last_ten_minutes(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let [stale, forced] = [(); 2].map(|()| Session::new());
    service.hold(&stale);
    schema.age(&stale, 31);
    service.acquire(&stale, json!({})).assert_granted("takeover");
    service.acquire(&stale, json!({})).assert_held();
    service.hold(&forced);
    service.force(&forced, json!({}));
    check_page(world, &service, &["history", &stale.device, &forced.device]);
}

fn the_page_says_that_the_database_is_gone(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &[]);
    let service = Service::start(&server.url(DATABASE), &[]);
    service.hold(&Session::new());
    drop(server);
    check_page(world, &service, &["gone"]);
    assert_eq!(service.get("/v1/history").status, 200);
}

fn the_page_asks_for_the_token(world: &World) {
    let (_schema, service) = world.own_service(&["--api-token", "t0ken"]);
    check_page(world, &service, &["token", "t0ken"]);
}
