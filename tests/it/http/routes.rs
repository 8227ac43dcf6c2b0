//! Paths, methods, and who may call them.

use serde_json::json;

use crate::world::{CLOSE, Session, TIMEOUT, World, http_agent, tests};

tests![
    unknown_paths_and_methods_are_refused,
    the_api_token_guards_every_route_with_data,
    paths_are_percent_decoded,
    a_page_of_another_site_may_not_ask,
];

fn unknown_paths_and_methods_are_refused(world: &World) {
    for path in
        ["/v1", "/v1/", "/v1/acquire/", "/v1/locks/a/b/c", "/v2/acquire", "//", "/healthz/x"]
    {
        world.service.get(path).assert_refused(404, "not_found");
    }
    for (method, path, allow) in [
        ("GET", "/v1/acquire", "POST"),
        ("PUT", "/v1/release", "POST"),
        ("DELETE", "/v1/locks/a/b", "GET, HEAD"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
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

fn the_api_token_guards_every_route_with_data(world: &World) {
    let service = world.serve(&["--api-token", "s3cret"]);
    let session = Session::new();
    service.acquire(&session, json!({})).assert_refused(401, "unauthorized");
    service.release(&session, "48210000000000000007").assert_refused(401, "unauthorized");
    service.get(&session.path()).assert_refused(401, "unauthorized");
    service.get("/v1/locks").assert_refused(401, "unauthorized");
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
    let not_utf8 = format!("/v1/locks/{}/%ff", session.device);
    world.service.get(&not_utf8).assert_refused(400, "invalid_request");
    world.service.get("/v1/locks//x").assert_refused(400, "invalid_request");
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
    let allowed = post("http://localhost:7099");
    assert!(allowed.starts_with("HTTP/1.1 200 "), "{allowed}");
}
