//! Hostile clients, on TCP and on a Unix socket.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::attacks::{SERVED_WITHIN, acquire_head, assert_served, attack, endless_heads};
use crate::world::{
    HEALTHZ, Session, SetOnDrop, World, connect_from, free_port, raw_get, raw_post, tests,
    unix_socket,
};

tests![
    hostile_clients_hold_up_nobody,
    clients_that_send_without_end_and_never_read_hold_up_nobody,
    a_forged_length_of_a_client_that_was_cut_off_ends_nobody,
    who_has_the_address_of_a_client_that_was_cut_off_holds_up_nobody,
    hostile_clients_of_a_unix_socket_hold_up_nobody,
];

fn hostile_clients_hold_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    attack(&service.endpoint);
    assert_eq!(endless_heads(&service.endpoint), 3, "all are cut off");
    let resident = service.resident_kib();
    assert!(resident < 256 * 1_024, "{resident} KiB");
    service.wait_for_line("sent an endless head");
}

fn clients_that_send_without_end_and_never_read_hold_up_nobody(world: &World) {
    let mut service = world.serve(&["--workers", "2"]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        let list = "/v1/locks?limit=1000";
        for target in ["/healthz", list, "/healthz", "/nowhere", "/healthz", "/readyz"] {
            let (endpoint, done) = (&service.endpoint, &done);
            scope.spawn(move || {
                let requests = raw_get(target, "").repeat(500);
                while !done.load(Ordering::Relaxed) {
                    // A client that was cut off connects again.
                    let mut stream = endpoint.connect();
                    stream.set_timeouts(SERVED_WITHIN, SERVED_WITHIN);
                    while !done.load(Ordering::Relaxed)
                        && stream.write_all(requests.as_bytes()).is_ok()
                    {}
                }
            });
        }
        for _ in 0..8 {
            assert_served(&service.endpoint);
            thread::sleep(SERVED_WITHIN);
        }
    });
    let resident = service.resident_kib();
    assert!(resident < 256 * 1_024, "{resident} KiB");
    assert_served(&service.endpoint);
    assert_eq!(service.stop(), Some(0));
}

fn a_forged_length_of_a_client_that_was_cut_off_ends_nobody(world: &World) {
    let mut service = world.serve(&[]);
    let session = Session::new();
    service.post("/v1/acquire", session.with(json!({})));
    let wait = raw_post("/v1/acquire", "", session.with(json!({"wait_ms": 300})));
    let more = HEALTHZ.repeat(30);
    let requests = wait + &more + &acquire_head(10_000_000_000_000_u64, "") + &more;
    let _open = [(); 5].map(|()| service.endpoint.send(&requests));
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(100));
        assert_served(&service.endpoint);
    }
    assert_eq!(service.stop(), Some(0));
}

fn who_has_the_address_of_a_client_that_was_cut_off_holds_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    let session = Session::new();
    service.post("/v1/acquire", session.with(json!({})));
    let wait = raw_post("/v1/acquire", "", session.with(json!({"wait_ms": 2000})));
    let more = HEALTHZ.repeat(30);
    let too_much = wait + &more;
    let from = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut first = connect_from(from, service.address);
    first.write_all(too_much.as_bytes()).unwrap();
    let cut_off = first.read(&mut [0; 1]);
    assert!(!cut_off.is_ok_and(|bytes| bytes > 0), "it is cut off");
    drop(first);

    let mut second = connect_from(from, service.address);
    second.write_all(acquire_head(5000, "").as_bytes()).unwrap();
    assert_served(&service.endpoint);
    assert_eq!(second.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    drop(second);

    // A client whose whole request is discarded is cut off, and does not wait for an answer.
    let mut third = connect_from(from, service.address);
    let _ = third.write_all(more.as_bytes());
    let ended = third.read_to_end(&mut Vec::new());
    let waits = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
    assert!(!ended.is_err_and(waits), "it is cut off");
}

fn hostile_clients_of_a_unix_socket_hold_up_nobody(world: &World) {
    let (_folder, listen) = unix_socket();
    let service = world.serve(&["--workers", "2", "--listen", &listen]);
    attack(&service.endpoint);
    let _unread = service.endpoint.send(HEALTHZ.repeat(600));
    service.wait_for_line("did not read their answers");
}
