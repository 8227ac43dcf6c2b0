//! A client must not believe in a lease for longer than the server does.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::http_proxy::{HttpProxy, pass};
use super::worker::{Skill, Worker, command, every_client, printed};
use crate::world::{Session, World, tests};

tests![
    a_client_renews_a_lease_whose_grant_came_late,
    a_client_does_not_believe_in_a_grant_that_is_already_lost,
    a_client_counts_from_when_it_asked,
    the_python_client_counts_the_time_of_a_suspended_machine,
];

const KNOWS: &[Skill] = &[Skill::SaysWhetherItIsAlive];

fn a_client_renews_a_lease_whose_grant_came_late(world: &World) {
    let server = world.service.address;
    every_client(KNOWS, |client| {
        let proxy = HttpProxy::start(move |number, request| {
            let answer = pass(server, request);
            thread::sleep(Duration::from_millis(if number == 0 { 3500 } else { 0 }));
            answer
        });
        let options = ["wamid.1", "0", "30000"];
        let mut worker = Worker::start(client, proxy.address, &Session::new(), &options);
        assert_eq!(worker.tell("acquire")["granted"], true, "{client:?}");
        let requests = proxy.requests.lock().unwrap();
        let renewed = matches!(&requests[..], [_, renew] if renew.text.contains(" /v1/renew "));
        assert!(renewed, "{client:?} {requests:#?}");
    });
}

/// Another worker acquires the conversation while the answer is on its way.
fn a_client_does_not_believe_in_a_grant_that_is_already_lost(world: &World) {
    let server = world.service.address;
    every_client(KNOWS, |client| {
        let session = Session::new();
        let Session { device, prospect } = session.clone();
        let other = json!({"id_device": device, "id_prospect": prospect, "wait_ms": 20_000});
        let proxy = HttpProxy::start(move |number, request| {
            let answer = pass(server, request);
            if number == 0 {
                assert!(acquire(server, &other).contains("takeover"));
            }
            answer
        });
        let options = ["wamid.1", "0", "1000"];
        let mut worker = Worker::start(client, proxy.address, &session, &options);
        let held = json!({"granted": false, "reason": "held", "remaining_ms": 0, "waiters": 0});
        assert_eq!(worker.tell("acquire"), held, "{client:?}");
        assert_ne!(worker.tell("alive"), true, "{client:?}");
    });
}

fn acquire(server: SocketAddr, fields: &Value) -> String {
    let body = fields.to_string();
    let head = format!("POST /v1/acquire HTTP/1.1\r\nHost: a\r\nContent-Length: {}", body.len());
    pass(server, &format!("{head}\r\n\r\n{body}"))
}

/// The answers to an acquire and a renewal come late, and no other.
fn a_client_counts_from_when_it_asked(world: &World) {
    const TTL: Duration = Duration::from_secs(3);
    const LATE: Duration = Duration::from_secs(2);
    let server = world.service.address;
    every_client(KNOWS, |client| {
        let proxy = HttpProxy::start(move |number, request| {
            let answer = if number < 2 { pass(server, request) } else { String::new() };
            thread::sleep(LATE);
            answer
        });
        let options = ["wamid.1", "0", &TTL.as_millis().to_string()];
        let mut worker = Worker::start(client, proxy.address, &Session::new(), &options);
        assert_eq!(worker.tell("acquire")["granted"], true, "{client:?}");
        thread::sleep(TTL.saturating_sub(LATE) + Duration::from_millis(500));
        assert_eq!(worker.tell("alive"), false, "{client:?}");
    });
}

/// A suspended machine stops the monotonic clock, but not the clock since its boot.
const SUSPENDED_BOT: &str = r"
import json, sys, time
from session_lock import Lease

lease = Lease(*sys.argv[1:])
lease.acquire()
alive = lease.alive()
clock_gettime = time.clock_gettime
time.clock_gettime = lambda clock: clock_gettime(clock) + 60 * (clock == time.CLOCK_BOOTTIME)
print(json.dumps([alive, lease.alive()]))
";

fn the_python_client_counts_the_time_of_a_suspended_machine(world: &World) {
    let Session { device, prospect } = &Session::new();
    let mut bot = command(&["python3", "-c", SUSPENDED_BOT, device, prospect]);
    let printed = printed(bot.env("SESSION_LOCK_URL", world.service.http_url()), "");
    assert_eq!(printed.out.trim(), "[true, false]", "{printed:?}");
}
