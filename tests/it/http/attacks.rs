//! Attacks on an endpoint. During each, and afterwards, other clients are served.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;

use crate::world::{CLOSE, Endpoint, HEALTHZ, Session, Stream, raw_post, raw_post_head};

/// The longest duration of a request during an attack.
pub const SERVED_WITHIN: Duration = Duration::from_millis(500);

/// A busy machine may stall for longer than this, but not each time.
const TRIES: usize = 40;

/// What a client with an endless head sends, unless it is cut off before.
const ENDLESS_BYTES: usize = 64 * 1024 * 1024;

type Connections = Vec<Box<dyn Stream>>;

pub fn attack(endpoint: &Endpoint) {
    let attacks: [fn(&Endpoint) -> Connections; 7] = [
        forged_lengths,
        silent_clients,
        slow_clients,
        pipelined_requests,
        unread_answers,
        other_protocols,
        random_bytes,
    ];
    assert_served(endpoint);
    let mut open = Vec::new();
    for attack in attacks {
        open.extend(attack(endpoint));
        assert_served(endpoint);
    }
    drop(open);
    assert_served(endpoint);
}

pub fn acquire_head(content_length: impl Display, headers: &str) -> String {
    raw_post_head("/v1/acquire", content_length, headers)
}

fn forged_lengths(endpoint: &Endpoint) -> Connections {
    let mut open = Vec::new();
    for digits in 1..=30 {
        let length = "1".to_owned() + &"0".repeat(digits);
        for body in ["", "{\"id_device\":"] {
            open.push(endpoint.send(acquire_head(&length, "") + body));
        }
    }
    for length in ["-1", "+5", "1e3", "0x10", "5 5", "", "18446744073709551615"] {
        open.push(endpoint.send(acquire_head(length, "") + "{}"));
    }
    open
}

/// Clients that send nothing after the head, or half of it, or nothing at all.
fn silent_clients(endpoint: &Endpoint) -> Connections {
    let clients = (0..150).map(|number| {
        endpoint.send(match number % 6 {
            0 => acquire_head(5000, ""),
            1 => acquire_head(500, ""),
            2 => acquire_head(500, "") + "{\"id_device\":",
            3 => acquire_head(500, "Expect: 100-continue\r\n"),
            4 => "POST /v1/acquire HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            _ => "POST /v1/acquire HTTP/1.1\r\nTransfer-Enc".to_owned(),
        })
    });
    clients.collect()
}

/// Clients that send a request byte by byte.
fn slow_clients(endpoint: &Endpoint) -> Connections {
    let client = |_| {
        let mut stream = endpoint.send("POST /v1/acq");
        for byte in b"uire HTTP/1.1\r\nContent-Length: 100\r\n\r\n{\"id" {
            let _ = stream.write_all(&[*byte]);
        }
        stream
    };
    (0..20).map(client).collect()
}

fn pipelined_requests(endpoint: &Endpoint) -> Connections {
    let count = match endpoint {
        Endpoint::Tcp(_) => 5_000,
        Endpoint::Unix(_) => 600,
    };
    vec![endpoint.send(HEALTHZ.repeat(count))]
}

/// Clients that send requests and read no answer. This does not run on a Unix socket, where the
/// service cannot identify the connection of a request: it would answer all of them, and delay
/// others.
fn unread_answers(endpoint: &Endpoint) -> Connections {
    let clients = match endpoint {
        Endpoint::Tcp(_) => 4,
        Endpoint::Unix(_) => 0,
    };
    let client = |_| {
        let mut stream = endpoint.connect();
        stream.set_timeouts(SERVED_WITHIN, SERVED_WITHIN);
        let requests = HEALTHZ.repeat(1_000);
        for _ in 0..50 {
            if stream.write_all(requests.as_bytes()).is_err() {
                break;
            }
        }
        stream
    };
    (0..clients).map(client).collect()
}

/// TLS and HTTP/2, which the service does not support, and an invalid version.
fn other_protocols(endpoint: &Endpoint) -> Connections {
    let clients = (0..20).flat_map(|_| {
        [
            endpoint.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03junk"),
            endpoint.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00"),
            endpoint.send("GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n"),
        ]
    });
    clients.collect()
}

fn random_bytes(endpoint: &Endpoint) -> Connections {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    (0..300).map(|_| endpoint.send(mutated_request(&mut rng))).collect()
}

/// A valid request with some changed bytes, or only random bytes.
fn mutated_request(rng: &mut Rng) -> Vec<u8> {
    let body = r#"{"id_device":"a","id_prospect":"b","ttl_ms":30000}"#;
    let mut bytes = (acquire_head(51, "") + body).into_bytes();
    for _ in 0..rng.usize(0..8) {
        let at = rng.usize(..bytes.len());
        match rng.u8(..4) {
            0 => bytes[at] = rng.u8(..),
            1 => bytes.insert(at, rng.u8(..)),
            2 => bytes.truncate(at.max(1)),
            _ => bytes.extend_from_within(at..),
        }
    }
    if rng.bool() {
        bytes.fill_with(|| rng.u8(..));
    }
    bytes
}

/// Sends heads that never end. Returns how many clients were cut off.
pub fn endless_heads(endpoint: &Endpoint) -> usize {
    let mut cut_off = 0;
    let line = "a".repeat(64 * 1_024);
    let many = "a: b\r\n".repeat(11_000);
    let mut open = Vec::new();
    for chunk in [&line, &many, &line] {
        let mut stream = endpoint.send("GET /healthz HTTP/1.1\r\n");
        stream.set_timeouts(SERVED_WITHIN, SERVED_WITHIN);
        let mut left = ENDLESS_BYTES;
        while left > 0 && stream.write_all(chunk.as_bytes()).is_ok() {
            left = left.saturating_sub(chunk.len());
        }
        cut_off += usize::from(left > 0);
        open.push(stream);
        assert_served(endpoint);
    }
    cut_off
}

#[track_caller]
pub fn assert_served(endpoint: &Endpoint) {
    let mut took = Vec::new();
    for _ in 0..TRIES {
        let began = Instant::now();
        let body = Session::new().with(json!({}));
        let answer = endpoint.ask(raw_post("/v1/acquire", CLOSE, body));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?} after {:?}", began.elapsed());
        took.push(began.elapsed());
        if began.elapsed() <= SERVED_WITHIN {
            return;
        }
    }
    panic!("{took:?}");
}
