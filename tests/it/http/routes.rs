//! Paths, methods, and access to them.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::world::{CLOSE, Session, TIMEOUT, World, http_agent, raw_get, raw_post, tests};

tests![
    unknown_paths_and_methods_are_refused,
    repeated_and_trailing_slashes_do_not_matter,
    options_is_answered_with_the_methods,
    a_refused_request_is_logged_once_a_second,
    the_api_token_guards_every_route_with_data,
    paths_are_percent_decoded,
    a_page_of_another_site_may_not_ask,
    the_page_may_ask_behind_a_proxy_that_replaces_the_host,
];

fn unknown_paths_and_methods_are_refused(world: &World) {
    for path in [
        "/v1",
        "/v1/",
        "/v1/acquire/x",
        "/v1/locks/a/b/c",
        "/v2/acquire",
        "/v1/locks/a",
        "/healthz/x",
    ] {
        world.service.get(path).assert_refused(404, "not_found");
    }
    for (method, path, allow) in [
        ("GET", "/v1/acquire", "POST, OPTIONS"),
        ("PUT", "/v1/release", "POST, OPTIONS"),
        ("DELETE", "/v1/locks/a/b", "GET, HEAD, OPTIONS"),
    ] {
        let answer = world.service.endpoint.ask(format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{CLOSE}\r\n"
        ));
        assert!(
            answer.starts_with("HTTP/1.1 405 ")
                && answer.contains(&format!("\r\nAllow: {allow}\r\n")),
            "{answer}"
        );
        assert!(answer.contains("method_not_allowed"), "{answer}");
    }
    let head =
        world.service.endpoint.ask(format!("HEAD /healthz HTTP/1.1\r\nHost: x\r\n{CLOSE}\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

fn repeated_and_trailing_slashes_do_not_matter(world: &World) {
    for path in ["//v1/acquire", "/v1/acquire/", "/v1//acquire//"] {
        let session = Session::new();
        world.service.post(path, session.with(json!({}))).assert_granted("new");
        let read = session.path().replace("/v1/", "//v1//") + "/";
        assert_eq!(world.service.get(&read).json["held"], json!(true));
    }
    assert_eq!(world.service.get("/healthz/").status, 200);
    assert_eq!(world.service.get("//v1/locks/").status, 200);
}

/// Load balancers send OPTIONS without a token.
fn options_is_answered_with_the_methods(world: &World) {
    let service = world.serve(&["--api-token", "s3cret"]);
    for (path, allow) in [
        ("/v1/acquire", "POST, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/v1/locks/a/b", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
    ] {
        let answer =
            service.endpoint.ask(format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\n{CLOSE}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        assert!(answer.contains(&format!("\r\nAllow: {allow}\r\n")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        // A client that believed a length would wait for the body.
        assert!(!answer.contains("Content-Length: 1"), "{answer}");
    }
    let unknown = service.endpoint.ask(format!("OPTIONS /x HTTP/1.1\r\nHost: x\r\n{CLOSE}\r\n"));
    assert!(unknown.starts_with("HTTP/1.1 401 "), "{unknown}");
}

fn a_refused_request_is_logged_once_a_second(world: &World) {
    let service = world.serve(&[]);
    for _ in 0..50 {
        service
            .post("/v1/acquire?x=1", json!({"id_device": "b"}))
            .assert_refused(400, "invalid_request");
    }
    let line =
        "INFO  Request refused status=400 method=POST path=/v1/acquire: id_prospect is missing";
    assert_eq!(service.wait_for_line(line), line);
    let refused = || service.log().iter().filter(|line| line.contains("Request refused")).count();
    assert!(refused() <= 2, "{:?}", service.log());
    thread::sleep(Duration::from_millis(1_100));
    service.get("/nowhere").assert_refused(404, "not_found");
    let line = service.wait_for_line("status=404 method=GET path=/nowhere");
    assert!(line.ends_with(" more"), "{line}");
}

fn the_api_token_guards_every_route_with_data(world: &World) {
    let service = world.serve(&["--api-token", "s3cret"]);
    let session = Session::new();
    service.acquire(&session, json!({})).assert_refused(401, "unauthorized");
    service.release(&session, "48210000000000000007").assert_refused(401, "unauthorized");
    service.get(&session.path()).assert_refused(401, "unauthorized");
    service.get("/v1/locks").assert_refused(401, "unauthorized");
    service.get("/v1/history").assert_refused(401, "unauthorized");
    assert_eq!(service.get("/healthz").status, 200);
    assert_eq!(service.get("/readyz").status, 200);
    let with = |header: &str| {
        let request = http_agent(TIMEOUT).get(service.http_url() + &session.path());
        request.header("Authorization", header).call().unwrap().status().as_u16()
    };
    assert_eq!([with("Bearer s3cret"), with("bearer s3cret")], [200, 200]);
    for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer", "Bearer ", "s3cret", "Basic s3cret"] {
        assert_eq!(with(wrong), 401, "{wrong}");
    }
    assert_eq!(world.stored(&session), None);
}

fn paths_are_percent_decoded(world: &World) {
    let session = Session { prospect: "60 12+%/x".to_owned(), ..Session::new() };
    world.service.hold(&session);
    let encoded = format!("/v1/locks/{}/60%2012+%25%2fx", session.device);
    assert_eq!(world.service.get(&encoded).json["id_prospect"], json!("60 12+%/x"));
    assert_eq!(world.service.get(&format!("{encoded}?a=b")).json["held"], json!(true));
    let literal = "/v1/locks/{id_device}/{id_prospect}";
    let braces = world.service.endpoint.ask(raw_get(literal, CLOSE));
    assert!(braces.contains("{\"held\":false}"), "{braces}");
    let not_utf8 = format!("/v1/locks/{}/%ff", session.device);
    world.service.get(&not_utf8).assert_refused(400, "invalid_request");
}

fn a_page_of_another_site_may_not_ask(world: &World) {
    let session = Session::new();
    let token = world.service.hold(&session);
    let body = session.with(json!({"force": true})).to_string();
    let post = |origin: &str| {
        world.service.endpoint.ask(format!(
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
    let allowed = post("http://LOCALHOST:7099");
    assert!(allowed.starts_with("HTTP/1.1 200 "), "{allowed}");
}

fn the_page_may_ask_behind_a_proxy_that_replaces_the_host(world: &World) {
    let service = world.serve(&["--origin", "https://lock.example.com"]);
    for (origin, status) in [
        ("https://lock.example.com", 409),
        ("https://LOCK.example.com:443", 409),
        ("http://lock.example.com", 400),
        ("https://evil.example", 400),
    ] {
        let body = Session::new().with(json!({"force": true}));
        let headers = format!("Origin: {origin}\r\n{CLOSE}");
        let answer = service.endpoint.ask(raw_post("/v1/release", &headers, body));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {answer}");
    }
}
