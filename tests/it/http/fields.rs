//! Requests of every shape: a clear refusal or the right answer, and nothing wrong stored.

use mysql::prelude::Queryable;
use serde_json::{Value, json};

use crate::world::{Service, Session, TABLE, World, tests};

tests![
    every_wrong_field_is_refused_by_name,
    what_is_no_json_object_is_refused,
    a_body_of_1024_bytes_is_the_longest,
    ids_of_every_printable_character_work,
    unknown_paths_and_methods_are_refused,
    the_api_token_guards_every_route_with_data,
    paths_are_percent_decoded,
];

fn every_wrong_field_is_refused_by_name(world: &World) {
    let session = Session::new();
    let token = "48210000000000000007";
    let long = "x".repeat(256);
    let acquire = |fields: Value| ("/v1/acquire", fields);
    let release = |fields: Value| ("/v1/release", fields);
    let mut cases = vec![
        ("ttl_ms", acquire(json!({"ttl_ms": 999}))),
        ("ttl_ms", acquire(json!({"ttl_ms": 3_600_001}))),
        ("ttl_ms", acquire(json!({"ttl_ms": 900_001}))),
        ("ttl_ms", acquire(json!({"ttl_ms": -1}))),
        ("ttl_ms", acquire(json!({"ttl_ms": 1e30}))),
        ("ttl_ms", acquire(json!({"ttl_ms": 30000.5}))),
        ("ttl_ms", acquire(json!({"ttl_ms": "30000"}))),
        ("ttl_ms", acquire(json!({"ttl_ms": null}))),
        ("ttl_ms", acquire(json!({"ttl_ms": [30000]}))),
        ("owner_token", acquire(json!({"owner_token": "4821000000000000000"}))),
        ("owner_token", acquire(json!({"owner_token": "482100000000000000070"}))),
        ("owner_token", acquire(json!({"owner_token": "4821000000000000000x"}))),
        ("owner_token", acquire(json!({"owner_token": "+8210000000000000007"}))),
        ("owner_token", acquire(json!({"owner_token": "٤8210000000000000007"}))),
        ("owner_token", acquire(json!({"owner_token": 48_210_000_000_000_000_u64}))),
        ("owner_token", acquire(json!({"owner_token": null}))),
        ("tll_ms", acquire(json!({"tll_ms": 30_000}))),
        ("wait_ms", acquire(json!({"wait_ms": 25_001}))),
        ("wait_ms", acquire(json!({"wait_ms": "1s"}))),
        ("force", acquire(json!({"force": true}))),
        ("owner_token", release(json!({}))),
        ("force", release(json!({"force": false, "owner_token": token}))),
        ("force", release(json!({"force": 1}))),
        ("owner_token", release(json!({"force": true, "owner_token": token}))),
        ("fencing_token", release(json!({"force": true, "fencing_token": "1"}))),
        ("fencing_token", release(json!({"fencing_token": 1, "owner_token": token}))),
        ("ttl_ms", release(json!({"ttl_ms": 30_000, "owner_token": token}))),
    ];
    for (path, fields) in [acquire(json!({})), release(json!({"owner_token": token}))] {
        for field in ["id_prospect", "id_device"] {
            for wrong in [
                json!(""),
                json!(" "),
                json!(" a"),
                json!("a "),
                json!("a\n"),
                json!("a\u{0}b"),
                json!("é"),
                json!("😀"),
                json!("\u{7f}"),
                json!(long),
                json!(60_123_456_789_u64),
                json!(null),
                json!(["a"]),
            ] {
                let mut fields = session.with(fields.clone());
                fields[field] = wrong;
                cases.push((field, (path, fields)));
            }
        }
    }
    for (field, (path, mut fields)) in cases {
        if fields.get("id_device").is_none() {
            fields = session.with(fields);
        }
        let message = world.service.post(path, &fields).assert_refused(400, "invalid_request");
        assert!(message.contains(field), "{fields} -> {message}");
    }
    for field in ["id_prospect", "id_device"] {
        let mut fields = session.with(json!({}));
        fields.as_object_mut().unwrap().remove(field);
        let message =
            world.service.post("/v1/acquire", &fields).assert_refused(400, "invalid_request");
        assert!(message.contains(field) && message.contains("missing"), "{message}");
    }
    assert_eq!(world.stored(&session), None);
}

fn what_is_no_json_object_is_refused(world: &World) {
    for body in [
        "",
        "{",
        "[]",
        "1",
        "\"x\"",
        "null",
        "{}x",
        "{'id_device':1}",
        "\u{feff}{}",
        "id_device=bot1",
    ] {
        world.service.post("/v1/acquire", body).assert_refused(400, "invalid_request");
    }
    let deep = "[".repeat(1_000);
    world.service.post("/v1/acquire", deep).assert_refused(400, "invalid_request");
    let twice = r#"{"id_device":"a","id_device":"b","id_prospect":"c"}"#;
    let message = world.service.post("/v1/acquire", twice).assert_refused(400, "invalid_request");
    assert!(message.contains("id_device"), "{message}");
}

fn a_body_of_1024_bytes_is_the_longest(world: &World) {
    let session = Session::new();
    let body = session.with(json!({})).to_string();
    let padded = |length: usize| format!("{body}{}", " ".repeat(length - body.len()));
    world.service.post("/v1/acquire", padded(1_025)).assert_refused(413, "too_large");
    assert_eq!(world.stored(&session), None);
    world.service.post("/v1/acquire", padded(1_024)).assert_granted("new");
}

fn ids_of_every_printable_character_work(world: &World) {
    let all: String = (b'!'..=b'~').map(char::from).collect();
    let odd = [
        "'", "\"", "\\", "\\'", "'; --", "/*", "%s", ":key", "{table}", "?", "a b", "0x41", "NULL",
    ];
    for prospect in odd.into_iter().map(str::to_owned).chain([all, "x".repeat(255)]) {
        let session = Session { prospect, ..Session::new() };
        let owner_token = world.service.hold(&session);
        world.service.acquire(&session, json!({})).assert_held();
        let stored: Vec<String> = {
            let sql = format!("SELECT id_prospect FROM {TABLE} WHERE id_device = ?");
            world.database.connect().exec(sql, (&session.device,)).unwrap()
        };
        assert_eq!(stored, std::slice::from_ref(&session.prospect));
        assert_eq!(world.service.get(&session.path()).json["id_prospect"], json!(session.prospect));
        assert_eq!(world.service.release(&session, &owner_token).status, 200);
    }
}

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
        let answer = raw(
            world,
            &format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ),
        );
        assert!(
            answer.starts_with("HTTP/1.1 405 ")
                && answer.contains(&format!("\r\nAllow: {allow}\r\n")),
            "{answer}"
        );
        assert!(answer.contains("method_not_allowed"), "{answer}");
    }
    let head = raw(world, "HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

fn raw(world: &World, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(world.service.address).unwrap();
    stream.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
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
        let url = format!("http://{}{}", service.address, session.path());
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        ureq::Agent::new_with_config(config)
            .get(url)
            .header("Authorization", header)
            .call()
            .unwrap()
            .status()
            .as_u16()
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

/// For servers of a test's own.
pub fn odd_ids_work(service: &Service) {
    for prospect in ["it's", "a\"b", "a\\b", "a\\'; -- ", "\\"] {
        let session = Session { prospect: prospect.trim().to_owned(), ..Session::new() };
        let owner_token = service.hold(&session);
        service.acquire(&session, json!({})).assert_held();
        assert_eq!(service.get(&session.path()).json["id_prospect"], json!(session.prospect));
        assert_eq!(service.release(&session, &owner_token).status, 200);
    }
}
