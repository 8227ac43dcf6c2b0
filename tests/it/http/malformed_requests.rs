//! Forged lengths, bodies of unknown length, unusual headers.

use serde_json::json;

use super::attacks::acquire_head;
use crate::world::{CLOSE, Service, Session, World, raw_get, raw_post, tests};

tests![
    forged_lengths_are_refused_and_the_process_lives,
    too_many_forged_lengths_end_in_a_clean_exit,
    bodies_of_unknown_length_are_refused_and_never_taken_for_requests,
    unusual_headers_are_refused,
    headers_that_make_tiny_http_panic_cost_no_worker,
];

/// The answer to a request whose `Content-Length` does not tell the truth.
fn forged(service: &Service, length: &str) -> String {
    service.endpoint.ask(acquire_head(length, "") + "{\"id_device\"")
}

#[track_caller]
fn assert_refusal(answer: &str, status: u16, code: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code),
        "{answer}"
    );
}

fn forged_lengths_are_refused_and_the_process_lives(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    for length in [
        "1025",
        "5000",
        "1048577",
        "67108865",
        "1000000000000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1000000000000000000000000000000",
    ] {
        assert_refusal(&forged(&service, length), 413, "too_large");
        assert_eq!(service.get("/healthz").status, 200, "after {length}");
    }
    for length in ["-1", "+5", "1e3", "0x10", "5 5", ""] {
        assert_refusal(&forged(&service, length), 400, "invalid_request");
    }
    let twice = "POST /v1/acquire HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x";
    assert_refusal(&service.endpoint.ask(twice), 400, "invalid_request");
    let get = "GET /healthz HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n";
    assert_refusal(&service.endpoint.ask(get), 413, "too_large");
    service.hold(&Session::new());
    // The connections that cannot be freed are counted.
    let metrics = service.text("/metrics");
    assert!(!metrics.contains("session_lock_connections_left_behind 0"), "{metrics}");
}

fn too_many_forged_lengths_end_in_a_clean_exit(world: &World) {
    let mut service = world.serve(&[]);
    for _ in 0..1_000 {
        assert_refusal(&forged(&service, "1000000000000"), 413, "too_large");
    }
    assert_eq!(service.wait(), Some(1));
    service.wait_for_line("too many requests with forged lengths");
}

fn bodies_of_unknown_length_are_refused_and_never_taken_for_requests(world: &World) {
    let session = Session::new();
    let inner = raw_post("/v1/acquire", "", session.with(json!({})));
    let chunked = format!(
        "POST /v1/acquire HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        inner.len()
    );
    let answered = world.service.endpoint.ask(chunked);
    assert_refusal(&answered, 411, "length_required");
    assert_eq!(answered.matches("HTTP/1.1 ").count(), 1, "{answered}");
    let none = "POST /v1/acquire HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_refusal(&world.service.endpoint.ask(none), 411, "length_required");
    assert_eq!(world.stored(&session), None);
}

fn unusual_headers_are_refused(world: &World) {
    for header in ["Expect: 100-continue\r\n", "Connection: upgrade\r\n"] {
        let answer = world.service.endpoint.ask(raw_post("/v1/acquire", header, "{}"));
        assert_refusal(&answer, 400, "invalid_request");
    }
}

fn headers_that_make_tiny_http_panic_cost_no_worker(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    let codings: Vec<_> = (0..60)
        .map(|n| {
            format!(
                "x{n};q={}",
                if n % 3 == 0 { "nan".to_owned() } else { format!("0.{}", n * 7 % 10) }
            )
        })
        .collect();
    let request = raw_get("/healthz", &format!("TE: {}\r\n{CLOSE}", codings.join(",")));
    for _ in 0..10 {
        service.endpoint.ask(&request);
    }
    service.hold(&Session::new());
}
