//! The front door: forged lengths, bodies that never come, bursts, signals.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::world::{PATIENCE, Service, Session, World, migrate, tests};

tests![
    forged_lengths_are_refused_and_the_process_lives,
    too_many_forged_lengths_end_in_a_clean_exit,
    bodies_of_unknown_length_are_refused_and_never_taken_for_requests,
    unusual_headers_are_refused,
    headers_that_make_tiny_http_panic_cost_no_worker,
    what_is_pipelined_behind_a_wait_holds_up_nobody,
    sigterm_answers_what_waits_behind_a_hanging_database,
    an_idle_service_is_small,
];

fn connect(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(service.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn send(service: &Service, request: &str) -> TcpStream {
    let mut stream = connect(service);
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Everything until the service closes the connection.
fn answer(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset after the answer is no worse than an end.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

fn forged(length: &str) -> String {
    format!(
        "POST /v1/acquire HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{\"id_device\""
    )
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
        assert_refusal(&answer(send(&service, &forged(length))), 413, "too_large");
        assert_eq!(service.get("/healthz").status, 200, "after {length}");
    }
    for length in ["-1", "+5", "1e3", "0x10", "5 5", ""] {
        assert_refusal(&answer(send(&service, &forged(length))), 400, "invalid_request");
    }
    let twice = "POST /v1/acquire HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x";
    assert_refusal(&answer(send(&service, twice)), 400, "invalid_request");
    let get = "GET /healthz HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n";
    assert_refusal(&answer(send(&service, get)), 413, "too_large");
    service.hold(&Session::new());
    // Those that cannot be freed are counted.
    let metrics = service.text("/metrics");
    assert!(!metrics.contains("session_lock_connections_left_behind 0"), "{metrics}");
}

fn too_many_forged_lengths_end_in_a_clean_exit(world: &World) {
    let mut service = world.serve(&[]);
    for _ in 0..1_000 {
        assert_refusal(&answer(send(&service, &forged("1000000000000"))), 413, "too_large");
    }
    assert_eq!(service.wait(), Some(1));
    service.wait_for_line("too many requests with forged lengths");
}

fn bodies_of_unknown_length_are_refused_and_never_taken_for_requests(world: &World) {
    let session = Session::new();
    let body = session.with(json!({})).to_string();
    let inner =
        format!("POST /v1/acquire HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "POST /v1/acquire HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        inner.len()
    );
    let answered = answer(send(&world.service, &chunked));
    assert_refusal(&answered, 411, "length_required");
    assert_eq!(answered.matches("HTTP/1.1 ").count(), 1, "{answered}");
    let none = "POST /v1/acquire HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_refusal(&answer(send(&world.service, none)), 411, "length_required");
    assert_eq!(world.stored(&session), None);
}

fn unusual_headers_are_refused(world: &World) {
    let with = |header: &str| {
        format!("POST /v1/acquire HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{header}\r\n\r\n{{}}")
    };
    for header in ["Expect: 100-continue", "Connection: upgrade"] {
        assert_refusal(&answer(send(&world.service, &with(header))), 400, "invalid_request");
    }
}

fn an_idle_service_is_small(world: &World) {
    let service = world.serve(&[]);
    service.hold(&Session::new());
    let resident_kib = service.resident_kib();
    assert!(resident_kib < 32 * 1_024, "{resident_kib} KiB");
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
    let request =
        format!("GET /healthz HTTP/1.1\r\nTE: {}\r\nConnection: close\r\n\r\n", codings.join(","));
    for _ in 0..10 {
        answer(send(&service, &request));
    }
    service.hold(&Session::new());
}

fn what_is_pipelined_behind_a_wait_holds_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    let (session, other) = (Session::new(), Session::new());
    for session in [&session, &other] {
        service.acquire(session, json!({"ttl_ms": 600_000})).assert_granted("new");
    }
    let post = |session: &Session, wait_ms: u64| {
        let body = session.with(json!({"wait_ms": wait_ms})).to_string();
        format!("POST /v1/acquire HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let looks = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(8);
    let mut stream = send(&service, &(post(&session, 8_000) + &post(&other, 10) + &looks));
    service.wait_for_waiters(&session, 1);
    // Neither the workers nor what ends waits in time is held up by the answers behind.
    service.acquire(&other, json!({"wait_ms": 100})).assert_held();
    service.hold(&Session::new());
    assert_eq!(service.waiters(&session), 1, "the first still waits");
    // The answers come in the order of the requests.
    let mut answers = String::new();
    let mut buffer = [0; 4_096];
    while answers.matches("HTTP/1.1 ").count() < 10 {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "{answers}");
        answers.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["409", "409", "200", "200", "200", "200", "200", "200", "200", "200"]);
}

fn sigterm_answers_what_waits_behind_a_hanging_database(world: &World) {
    let server = crate::world::DatabaseServer::start(world.engine, &[]);
    let url = server.url("session_lock");
    migrate(&url);
    let mut service = Service::start(&url, &["--workers", "2"]);
    let session = Session::new();
    service.acquire(&session, json!({"ttl_ms": 1_000})).assert_granted("new");
    let address = service.address;
    let ask = move |body: String| {
        thread::spawn(move || {
            let request = format!(
                "POST /v1/acquire HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            answer(stream)
        })
    };
    server.freeze();
    let waiters = (0..4).map(|_| ask(session.with(json!({"wait_ms": 20_000})).to_string()));
    let others = (0..12).map(|_| ask(Session::new().with(json!({})).to_string()));
    let asked: Vec<_> = waiters.chain(others).collect();
    thread::sleep(Duration::from_millis(1_500));
    service.signal("-TERM");
    for asked in asked {
        let answered = asked.join().unwrap();
        assert!(answered.starts_with("HTTP/1.1 503 "), "{answered}");
    }
    assert_eq!(service.wait(), Some(0));
    server.thaw();
}
