//! Bytes that follow a refused body, which tiny_http would parse as the next request. They may be
//! text that a stranger wrote, and nothing in them is executed.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::malformed_requests::body_readers;
use crate::world::{Session, Stream, World, eventually, raw_post, tests, unix_socket};

tests![
    no_request_in_a_refused_body_is_executed,
    no_request_in_a_body_that_a_pause_interrupted_is_executed,
];

/// After this time, a request that follows an answer would have been executed.
const EXECUTED_WITHIN: Duration = Duration::from_millis(500);

const HEAD: &str = "POST /v1/acquire HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n";

/// More chunks than are read of a refused body, and in the last one a request.
fn endless_chunks(request: &str) -> String {
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000)).repeat(512);
    let last = format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n{request}", "x".repeat(20_000));
    format!("{HEAD}\r\n{chunk}{:x}\r\n{last}\r\n0\r\n\r\n", last.len())
}

/// A request of an invalid length.
fn with_length(length: &str, body: &str) -> String {
    format!("POST /v1/acquire HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Reads the first answer. The connection may stay open.
fn read_answer(stream: &mut dyn Stream) -> String {
    let mut answer = Vec::new();
    // A client on a Unix socket learns the end of the answer from its length.
    while !answer.ends_with(b"}}\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let answer = String::from_utf8(answer).unwrap();
    let length = answer.split("\r\n\r\n").last().unwrap().len();
    assert!(answer.contains(&format!("Content-Length: {length}\r\n")), "{answer}");
    let interim = "HTTP/1.1 100 Continue\r\n";
    match answer.split_once("\r\n\r\n") {
        Some((head, rest)) if head.starts_with(interim) => rest.to_owned(),
        _ => answer,
    }
}

#[track_caller]
fn assert_not_executed(world: &World, hidden: &[Session]) {
    thread::sleep(EXECUTED_WITHIN);
    for session in hidden {
        assert_eq!(world.stored(session), None);
    }
}

fn no_request_in_a_refused_body_is_executed(world: &World) {
    let (_folder, listen) = unix_socket();
    // On a Unix socket, a body of an invalid length is a request.
    for (service, forms) in [(world.serve(&[]), 6), (world.serve(&["--listen", &listen]), 4)] {
        let hidden: Vec<_> = (0..24).map(|_| Session::new()).collect();
        let mut open = Vec::new();
        for (number, session) in hidden.iter().enumerate() {
            let request = raw_post("/v1/acquire", "", session.with(json!({})));
            let (begun, status) = match number % forms {
                0 => (format!("{HEAD}\r\nzz\r\n{request}"), 400),
                1 => (format!("{HEAD}Content-Length: 3\r\n\r\n{request}"), 400),
                2 => (format!("{HEAD}\r\n5\r\n{{}}   x{request}"), 400),
                3 => (endless_chunks(&request), 413),
                4 => (with_length("0x10", &request), 400),
                _ => (with_length("2\r\nContent-Length: 98", &request), 400),
            };
            let mut stream = service.endpoint.send(begun);
            let answer = read_answer(&mut *stream);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{number}: {answer}");
            open.push(stream);
        }
        assert_not_executed(world, &hidden);
    }
}

fn no_request_in_a_body_that_a_pause_interrupted_is_executed(world: &World) {
    let service = world.serve(&[]);
    let hidden: Vec<_> = (0..10).map(|_| Session::new()).collect();
    for session in &hidden {
        let request = raw_post("/v1/acquire", "", session.with(json!({})));
        let mut stream = service.endpoint.send(format!("{HEAD}\r\n{:x}\r\n", request.len()));
        eventually(|| "its body is read", || (body_readers(&service) == 1).then_some(()));
        service.signal("-STOP");
        stream.write_all(request.as_bytes()).unwrap();
        service.signal("-CONT");
        let answer = read_answer(&mut *stream);
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_not_executed(world, &hidden);
}
