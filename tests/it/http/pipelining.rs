//! Requests that follow an unanswered request on the same connection.

use std::io::Read;

use serde_json::json;

use super::keep_alive::read_ok;
use crate::world::{HEALTHZ, Session, World, raw_post, tests, unix_socket};

tests![
    what_is_pipelined_behind_a_wait_holds_up_nobody,
    too_many_answers_behind_a_wait_on_a_unix_socket_end_in_a_clean_exit,
];

fn what_is_pipelined_behind_a_wait_holds_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    let (session, other) = (Session::new(), Session::new());
    for session in [&session, &other] {
        service.acquire(session, json!({"ttl_ms": 600_000})).assert_granted("new");
    }
    let post = |session: &Session, wait_ms: u64| {
        raw_post("/v1/acquire", "", session.with(json!({"wait_ms": wait_ms})))
    };
    let requests = post(&session, 8_000) + &post(&other, 10) + &HEALTHZ.repeat(8);
    let mut stream = service.endpoint.send(requests);
    service.wait_for_waiters(&session, 1);
    // The answers that must follow it delay neither the workers nor the ends of other waits.
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

fn too_many_answers_behind_a_wait_on_a_unix_socket_end_in_a_clean_exit(world: &World) {
    let (_folder, listen) = unix_socket();
    let mut service = world.serve(&["--listen", &listen]);
    let session = Session::new();
    let post = |fields| raw_post("/v1/acquire", "", session.with(fields));
    let mut held = service.endpoint.send(post(json!({"ttl_ms": 600_000})));
    read_ok(&mut *held).unwrap();
    let _waits = service.endpoint.send(post(json!({"wait_ms": 25_000})) + &HEALTHZ.repeat(600));
    assert_eq!(service.wait(), Some(1));
    service.wait_for_line("a restart frees");
}
