//! SIGTERM, SIGKILL, and the next start.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use super::keep_alive::read_answer;
use super::malformed_requests::body_readers;
use crate::world::{
    CLOSE, DatabaseServer, Fault, HEALTHZ, Service, Session, UPGRADE, World, eventually, raw_get,
    raw_post, tests,
};

tests![
    a_stopping_service_stops_listening_first,
    a_stopping_service_ends_although_clients_go_on,
    kill_9_loses_no_granted_lease_and_the_next_start_takes_a_moment,
    sigterm_answers_what_waits_behind_a_hanging_database,
    sigterm_answers_who_waits_for_the_database,
    sigterm_blames_no_client_for_a_body_that_is_on_its_way,
];

fn a_stopping_service_stops_listening_first(world: &World) {
    let mut service = world.serve(&["--workers", "2"]);
    let session = Session::new();
    world.store(&session, "garbage");
    let mut other_program = world.lock_row(&session);
    let endpoint = service.endpoint.clone();
    let request = raw_post("/v1/acquire", CLOSE, session.with(json!({})));
    let asked = thread::spawn(move || endpoint.ask(request));
    world.wait_for_write(&session);
    service.signal("-TERM");
    eventually(|| "connections are refused", || service.endpoint.try_connect().err());
    assert!(service.try_wait().is_none(), "what was accepted is not answered yet");
    other_program.query_drop("ROLLBACK").unwrap();
    let answered = asked.join().unwrap();
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
    assert_eq!(service.wait(), Some(0));
}

fn a_stopping_service_ends_although_clients_go_on(world: &World) {
    let mut service = world.serve(&[]);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = service.endpoint.connect();
            thread::spawn(move || {
                while stream.write_all(HEALTHZ.as_bytes()).is_ok()
                    && let Ok(answer) = read_answer(&mut *stream)
                {
                    // Requests that arrive while the service stops may be refused.
                    let is_over =
                        answer.starts_with("HTTP/1.1 503 ") && answer.contains("is stopping");
                    assert!(is_over || answer.starts_with("HTTP/1.1 200 "), "{answer}");
                }
            })
        })
        .collect();
    service.hold(&Session::new());
    assert_eq!(service.stop(), Some(0));
    for client in clients {
        client.join().unwrap();
    }
}

fn kill_9_loses_no_granted_lease_and_the_next_start_takes_a_moment(world: &World) {
    const READY_WITHIN: Duration = Duration::from_secs(1);
    let mut started_in = Vec::new();
    for _ in 0..3 {
        let service = world.serve(&[]);
        let granted = Arc::new(Mutex::new(Vec::new()));
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (granted, endpoint) = (Arc::clone(&granted), service.endpoint.clone());
                thread::spawn(move || {
                    loop {
                        let session = Session::new();
                        let fields = session.with(json!({"ttl_ms": 600_000}));
                        let request = raw_post("/v1/acquire", CLOSE, fields);
                        let Ok(mut stream) = endpoint.try_connect() else { return };
                        let mut answer = String::new();
                        if stream.write_all(request.as_bytes()).is_err()
                            || stream.read_to_string(&mut answer).is_err()
                        {
                            return;
                        }
                        if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("}\n") {
                            granted.lock().unwrap().push(session);
                        }
                    }
                })
            })
            .collect();
        eventually(|| "many leases", || (granted.lock().unwrap().len() > 200).then_some(()));
        service.signal("-KILL");
        for worker in workers {
            worker.join().unwrap();
        }
        let began = Instant::now();
        let service = world.serve(&[]);
        started_in.push(began.elapsed());
        for session in granted.lock().unwrap().iter() {
            assert_eq!(service.get(&session.path()).json["held"], json!(true), "{session}");
        }
    }
    assert!(started_in.iter().any(|took| *took <= READY_WITHIN), "{started_in:?}");
}

fn sigterm_answers_what_waits_behind_a_hanging_database(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &[]);
    let mut service = Service::start(&server.url(DATABASE), &["--workers", "2"]);
    let session = Session::new();
    service.acquire(&session, json!({"ttl_ms": 1_000})).assert_granted("new");
    server.freeze();
    thread::scope(|scope| {
        let endpoint = &service.endpoint;
        let ask =
            |fields| scope.spawn(move || endpoint.ask(raw_post("/v1/acquire", CLOSE, fields)));
        let waiters = (0..4).map(|_| ask(session.with(json!({"wait_ms": 20_000}))));
        let others = (0..12).map(|_| ask(Session::new().with(json!({}))));
        let asked: Vec<_> = waiters.chain(others).collect();
        thread::sleep(Duration::from_millis(1_500));
        service.signal("-TERM");
        for asked in asked {
            let answered = asked.join().unwrap();
            assert!(answered.starts_with("HTTP/1.1 503 "), "{answered}");
        }
    });
    assert_eq!(service.wait(), Some(0));
    server.thaw();
}

fn sigterm_answers_who_waits_for_the_database(world: &World) {
    // A request that waits for another program's lock.
    let session = Session::new();
    world.store(&session, "garbage");
    let mut service = world.serve(&["--workers", "1"]);
    let other_program = world.lock_row(&session);
    let reply = thread::scope(|scope| {
        let asked = scope.spawn(|| service.acquire(&session, json!({})));
        world.wait_for_write(&session);
        service.signal("-TERM");
        asked.join().unwrap()
    });
    reply.assert_refused(503, "unavailable");
    assert_eq!(service.wait(), Some(0));
    drop(other_program);

    // A request that waits for the network, and another one that waits for the first.
    let (proxy, mut service) = world.serve_through_proxy(&[]);
    service.recovery();
    proxy.set(Fault::Discard);
    let answers = thread::scope(|scope| {
        let requests = raw_get("/v1/locks", "") + HEALTHZ;
        let asked = scope.spawn(|| service.endpoint.ask(requests));
        thread::sleep(Duration::from_millis(300));
        service.signal("-TERM");
        asked.join().unwrap()
    });
    assert_eq!(answers.matches("HTTP/1.1 503 ").count(), 2, "{answers}");
    assert_eq!(service.wait(), Some(0));
}

/// A 400 would tell a client that its request is wrong, and it would not repeat it.
fn sigterm_blames_no_client_for_a_body_that_is_on_its_way(world: &World) {
    let mut service = world.serve(&[]);
    let begun = [
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n35\r\n{\"id_",
        &format!("Content-Length: 100\r\n{UPGRADE}\r\n"),
    ];
    let begun: Vec<_> = (0..20)
        .map(|number| {
            let begun = begun[number % begun.len()];
            service.endpoint.send(format!("POST /v1/acquire HTTP/1.1\r\nHost: x\r\n{begun}"))
        })
        .collect();
    eventually(|| "their bodies are read", || (body_readers(&service) == 20).then_some(()));
    service.signal("-TERM");
    for mut stream in begun {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    assert_eq!(service.wait(), Some(0));
}
