//! Answers of a gateway or a proxy that are not the service's.

use std::time::Duration;

use super::http_proxy::{HttpProxy, pass, response};
use super::worker::{Skill, Worker, acquire_once, every_client};
use crate::world::{Session, World, assert_says, eventually, tests};

tests![
    no_client_takes_a_gateways_page_for_an_answer,
    every_client_fails_at_once_for_a_status_below_500,
    no_client_sleeps_for_as_long_as_a_gateway_says,
    every_client_renews_again_after_a_refusal_and_a_page,
];

const PAGE: &str = "<p>sign in</p>";
const GRANTED: &str =
    r#"{"granted":true,"owner_token":"1","fencing_token":1,"remaining_ms":30000,"how":"new"}"#;
/// The beginning of a longer answer.
const CUT: &str = r#"{"granted":true,"owner_to"#;
/// As many tries as a client has.
const TRIES: usize = 6;

/// Statuses and bodies that no server of session-lock sends.
const UNUSABLE: [[(&str, &str); TRIES - 1]; 2] = [
    [
        ("200 OK", PAGE),
        ("200 OK", r#"{"error":{"code":"unavailable","message":"sign in"}}"#),
        ("200 OK", "null"),
        ("409 Conflict", PAGE),
        ("409 Conflict", r#"{"reason":"held"}"#),
    ],
    [
        ("200 OK", r#"{"released":true}"#),
        ("409 Conflict", GRANTED),
        ("502 Bad Gateway", r#""granted""#),
        ("503 Service Unavailable", GRANTED),
        ("200 OK", "[true]"),
    ],
];

/// Asks again at once.
const NO_PAUSE: &str = "Retry-After: 0\r\n";

fn no_client_takes_a_gateways_page_for_an_answer(world: &World) {
    let server = world.service.address;
    every_client(&[], |client| {
        for unusable in UNUSABLE {
            let gateway = HttpProxy::start(move |number, request| match unusable.get(number) {
                Some((status, body)) => response(status, NO_PAUSE, body),
                None => pass(server, request),
            });
            let mut worker = Worker::start(client, gateway.address, &Session::new(), &[]);
            assert_eq!(worker.tell("acquire")["how"], "new", "{client:?} {unusable:?}");
            assert_eq!(gateway.requests.lock().unwrap().len(), TRIES, "{client:?}");
        }
        let truncates = HttpProxy::start(move |number, request| match number {
            0 => response("200 OK", NO_PAUSE, CUT).replace("Length: ", "Length: 1"),
            _ => pass(server, request),
        });
        let session = Session::new();
        let mut worker = Worker::start(client, truncates.address, &session, &[]);
        worker.tell("acquire");
        assert_eq!(worker.tell("release")["released"], true, "{client:?}");

        let gateway = HttpProxy::start(|_, _| response("200 OK", NO_PAUSE, PAGE));
        let url = format!("http://{}", gateway.address);
        assert_says(&acquire_once(client.program, &url, &[]).err, &["session-lock", "200", PAGE]);
        assert_eq!(gateway.requests.lock().unwrap().len(), TRIES, "{client:?}");
    });
}

fn every_client_fails_at_once_for_a_status_below_500(_world: &World) {
    const REFUSALS: [(&str, &str); 7] = [
        ("204", "No Content"),
        ("302", "Found"),
        ("307", "Temporary Redirect"),
        ("400", "Bad Request"),
        ("404", "Not Found"),
        ("408", "Request Timeout"),
        ("429", "Too Many Requests"),
    ];
    every_client(&[], |client| {
        for (status, reason) in REFUSALS {
            let headers = format!("{NO_PAUSE}Location: /v1/acquire\r\n");
            let body = if status == "204" { "" } else { GRANTED };
            let gateway = HttpProxy::start(move |number, _| match number {
                0 => response(&format!("{status} {reason}"), &headers, body),
                _ => response("200 OK", "", GRANTED),
            });
            let url = format!("http://{}", gateway.address);
            let printed = acquire_once(client.program, &url, &[]);
            assert_says(&printed.err, &["session-lock", status, body]);
            assert_eq!(gateway.requests.lock().unwrap().len(), 1, "{client:?} {status}");
        }
    });
}

fn no_client_sleeps_for_as_long_as_a_gateway_says(world: &World) {
    const WANTED: [&str; 2] = ["Fri, 31 Dec 2099 23:59:59 GMT", "3600"];
    const PAUSES: [(Duration, Duration); 2] = [
        (Duration::ZERO, Duration::from_secs(4)),
        (Duration::from_millis(4500), Duration::from_secs(9)),
    ];
    let server = world.service.address;
    every_client(&[], |client| {
        let gateway = HttpProxy::start(move |number, request| match WANTED.get(number) {
            Some(after) => response("503 Unavailable", &format!("Retry-After: {after}\r\n"), ""),
            None => pass(server, request),
        });
        let mut worker = Worker::start(client, gateway.address, &Session::new(), &[]);
        worker.send("acquire");
        let came = eventually(
            || format!("{client:?} asks a third time"),
            || match &gateway.requests.lock().unwrap()[..] {
                [first, second, third] => Some([first.came, second.came, third.came]),
                _ => None,
            },
        );
        assert_eq!(worker.answer()["granted"], true, "{client:?}");
        for (number, (least, most)) in PAUSES.into_iter().enumerate() {
            let pause = came[number + 1] - came[number];
            assert!((least..most).contains(&pause), "{client:?}: {}: {pause:?}", WANTED[number]);
        }
    });
}

fn every_client_renews_again_after_a_refusal_and_a_page(world: &World) {
    let server = world.service.address;
    every_client(&[Skill::RenewsByItself], |client| {
        let gateway = HttpProxy::start(move |number, request| match number {
            1 => response("404 Not Found", "", PAGE),
            2 => response("200 OK", NO_PAUSE, PAGE),
            _ => pass(server, request),
        });
        let options = ["wamid.1", "0", "6000"];
        let mut worker = Worker::start(client, gateway.address, &Session::new(), &options);
        worker.tell("acquire");
        let requests = || gateway.requests.lock().unwrap().len();
        eventually(|| format!("{client:?} renews"), || (requests() > 3).then_some(()));
        if client.can(Skill::SaysWhetherItIsAlive) {
            assert_eq!(worker.tell("alive"), true, "{client:?}");
        }
        assert_eq!(worker.tell("release")["released"], true, "{client:?}");
    });
}
