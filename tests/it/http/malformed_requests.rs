//! Forged lengths, bodies of unknown length, unusual headers.

use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use super::attacks::acquire_head;
use crate::world::{CLOSE, Service, Session, UPGRADE, World, eventually, raw_get, raw_post, tests};

tests![
    forged_lengths_are_refused_and_the_process_lives,
    too_many_forged_lengths_end_in_a_clean_exit,
    a_chunked_body_is_taken_up_to_1024_bytes,
    a_chunked_body_is_never_taken_for_a_request,
    a_connection_goes_on_after_a_chunked_body,
    an_expected_body_is_asked_for_with_100,
    an_offer_of_an_upgrade_is_ignored,
    the_refusal_of_a_long_body_reaches_its_client,
    a_body_that_comes_slowly_holds_up_nobody,
    a_paused_service_blames_no_client_for_its_body,
    headers_that_make_tiny_http_panic_cost_no_worker,
];

/// The answer to a request with a false `Content-Length`.
fn forged(service: &Service, length: &str) -> String {
    service.endpoint.ask(acquire_head(length, "") + "{\"id_device\"")
}

#[track_caller]
fn assert_refusal(answer: &str, status: u16, code: &str) {
    // An interim answer may precede the refusal.
    let answer = match answer.split_once("\r\n\r\n") {
        Some((head, rest)) if head.starts_with("HTTP/1.1 100 ") => rest,
        _ => answer,
    };
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
    // tiny_http parses these lengths.
    for header in ["+1000000000000", "1000000000000\r\nContent-Length: 1000000000000"] {
        assert_refusal(&forged(&service, header), 400, "Content-Length");
        assert_eq!(service.get("/healthz").status, 200, "after {header}");
    }
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

/// A POST to acquire whose body comes in these chunks.
fn chunked(headers: &str, chunks: &[&str]) -> String {
    let chunks = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    format!(
        "POST /v1/acquire HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{headers}\r\n{}0\r\n\r\n",
        chunks.collect::<String>()
    )
}

fn a_chunked_body_is_taken_up_to_1024_bytes(world: &World) {
    let ask = |headers: &str, chunks: &[&str]| world.service.endpoint.ask(chunked(headers, chunks));
    let session = Session::new();
    let body = session.with(json!({})).to_string();
    let (first, second) = body.split_at(20);
    let granted = ask(CLOSE, &[first, second]);
    assert!(granted.starts_with("HTTP/1.1 200 "), "{granted}");
    assert!(world.stored(&session).is_some());
    let longest = format!("{body:1024}");
    assert_refusal(&ask(CLOSE, &[&longest]), 409, "held");
    assert_refusal(&ask("", &[&longest, " "]), 413, "too_large");
    let endless = chunked("", &vec![longest.as_str(); 4_000]);
    assert_refusal(&world.service.endpoint.ask(endless), 413, "too_large");
    let broken = chunked(CLOSE, &[&body]).replace("\r\n\r\n", "\r\n\r\nx");
    assert_refusal(&world.service.endpoint.ask(broken), 400, "chunks");
}

fn a_chunked_body_is_never_taken_for_a_request(world: &World) {
    let session = Session::new();
    let inner = raw_post("/v1/acquire", "", session.with(json!({})));
    let answered = world.service.endpoint.ask(chunked(CLOSE, &[&inner]));
    assert_refusal(&answered, 400, "invalid_request");
    assert_eq!(answered.matches("HTTP/1.1 ").count(), 1, "{answered}");
    let both = chunked("Content-Length: 3\r\n", &[&inner]);
    assert_refusal(&world.service.endpoint.ask(both), 400, "invalid_request");
    let none = "POST /v1/acquire HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_refusal(&world.service.endpoint.ask(none), 411, "length_required");
    assert_eq!(world.stored(&session), None);
}

fn a_connection_goes_on_after_a_chunked_body(world: &World) {
    let session = Session::new();
    let body = session.with(json!({})).to_string();
    let answered = world.service.endpoint.ask(chunked("", &[&body]) + &raw_get("/healthz", CLOSE));
    assert_eq!(answered.matches("HTTP/1.1 200 ").count(), 2, "{answered}");
}

fn an_expected_body_is_asked_for_with_100(world: &World) {
    let body = Session::new().with(json!({})).to_string();
    let head = acquire_head(body.len(), &format!("Expect: 100-continue\r\n{CLOSE}"));
    let mut stream = world.service.endpoint.send(head);
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 100 Continue\r\n"));
    stream.write_all(body.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("HTTP/1.1 200 "), "{text}");
    // The service does not ask for a body that is too large.
    let refused = world.service.endpoint.ask(acquire_head(1025, "Expect: 100-continue\r\n"));
    assert_refusal(&refused, 413, "too_large");
}

fn an_offer_of_an_upgrade_is_ignored(world: &World) {
    let ask = |request: String| world.service.endpoint.ask(request);
    let answer = ask(raw_get("/healthz", UPGRADE));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Otherwise the JDK would send its next request on this connection.
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    let session = Session::new();
    let body = session.with(json!({})).to_string();
    let granted = ask(raw_post("/v1/acquire", UPGRADE, &body));
    assert!(granted.starts_with("HTTP/1.1 200 "), "{granted}");
    assert_refusal(&ask(raw_post("/v1/acquire", UPGRADE, &body)), 409, "held");
    let (first, second) = body.split_at(20);
    assert_refusal(&ask(chunked(UPGRADE, &[first, second])), 409, "held");
    assert_refusal(&ask(raw_post("/v1/acquire", UPGRADE, "{}")), 400, "invalid_request");
}

/// A client that sends its whole body before it reads sees the refusal, for any size of body.
fn the_refusal_of_a_long_body_reaches_its_client(world: &World) {
    for _ in 0..20 {
        let chunk = "x".repeat(1_024);
        let declared = [1_025, 200_000, 2_000_000]
            .map(|length| raw_post("/v1/acquire", "", "x".repeat(length)));
        let chunked = [2, 60, 1_000].map(|count| chunked("", &vec![chunk.as_str(); count]));
        for request in declared.into_iter().chain(chunked) {
            let mut stream = world.service.endpoint.connect();
            for part in request.as_bytes().chunks(10_000) {
                stream.write_all(part).unwrap();
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_refusal(&answer, 413, "too_large");
        }
    }
}

fn a_body_that_comes_slowly_holds_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let slow = chunked("", &["{"]).replace("0\r\n\r\n", "");
    let slow: Vec<_> = (0..200).map(|_| service.endpoint.send(&slow)).collect();
    let began = Instant::now();
    for _ in 0..10 {
        let body = Session::new().with(json!({})).to_string();
        let granted = service.endpoint.ask(chunked(CLOSE, &[&body]));
        assert!(granted.starts_with("HTTP/1.1 200 "), "{granted}");
        service.hold(&Session::new());
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(body_readers(&service) < 100);
    // The first clients were cut off for the others, which finally got the reason.
    let told = slow.into_iter().filter_map(|mut stream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok().filter(|_| answer.contains("not complete"))?;
        // An honest client may have waited for the network, and repeats its request.
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        Some(())
    });
    assert!(told.count() > 20);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// The system interrupts reads if a process is paused, as by a debugger. A 400 would tell a client
/// that its request is wrong, and it would not repeat it.
fn a_paused_service_blames_no_client_for_its_body(world: &World) {
    let service = world.serve(&[]);
    let heads = ["Transfer-Encoding: chunked\r\n", &format!("Content-Length: 100\r\n{UPGRADE}")];
    let bodies = heads.map(|head| {
        let begun = format!("POST /v1/acquire HTTP/1.1\r\nHost: x\r\n{head}\r\n5\r\n{{");
        service.endpoint.send(begun)
    });
    eventually(|| "their bodies are read", || (body_readers(&service) == 2).then_some(()));
    service.signal("-STOP");
    service.signal("-CONT");
    for mut stream in bodies {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("try again"), "{answer}");
    }
}

/// The number of the service's threads that read bodies.
pub fn body_readers(service: &Service) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap();
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "body-reader").count()
}

/// A header line on which tiny_http panics when it answers.
fn panicking_header() -> String {
    let codings = (0..60).map(|n| {
        let weight = if n % 3 == 0 { "nan".to_owned() } else { format!("0.{}", n * 7 % 10) };
        format!("x{n};q={weight}")
    });
    format!("TE: {}\r\n", codings.collect::<Vec<_>>().join(","))
}

fn headers_that_make_tiny_http_panic_cost_no_worker(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    let header = panicking_header();
    let requests = [
        raw_get("/healthz", &format!("{header}{CLOSE}")),
        acquire_head("1000000000000", &header),
        acquire_head("5000", &header) + &"x".repeat(5_000),
        acquire_head("1000", &header) + &"x".repeat(1_000),
        chunked(&header, &["{}"]),
    ];
    for request in requests {
        for _ in 0..10 {
            service.endpoint.ask(&request);
        }
        service.hold(&Session::new());
    }
}
