//! Standing in line: first come, first served, without a thread or a connection to the database.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{PATIENCE, Reply, Service, Session, TABLE, World, tests};

tests![
    a_release_hands_the_session_to_the_first_in_line,
    fifty_waiters_are_served_in_the_order_of_their_arrival,
    nobody_is_overtaken_within_a_server_beside_another,
    nobody_who_does_not_wait_overtakes_the_line,
    a_wait_ends_in_time_with_a_plain_refusal,
    a_lone_waiter_is_never_forgotten,
    an_expiry_wakes_the_first_in_line,
    a_release_elsewhere_wakes_the_first_in_line,
    a_holder_that_asks_again_does_not_stand_in_line,
    a_waiter_that_asks_twice_is_answered_twice,
    a_waiter_whose_client_is_gone_costs_one_ttl_at_most,
    sigterm_answers_every_waiter,
    a_thousand_waiters_hold_up_nobody,
    a_locked_row_refuses_those_who_wait_for_it,
];

fn wait(service: &Service, session: &Session, wait_ms: u64) -> Reply {
    service.acquire(session, json!({"wait_ms": wait_ms}))
}

fn a_release_hands_the_session_to_the_first_in_line(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&world.service, &session, 25_000));
        world.service.wait_for_waiters(&session, 1);
        let refused = world.service.acquire(&session, json!({}));
        refused.assert_held();
        assert_eq!(refused.number("waiters"), 1);
        assert_eq!(world.service.release(&session, &owner_token).status, 200);
        waiting.join().unwrap().assert_granted("new");
    });
}

fn fifty_waiters_are_served_in_the_order_of_their_arrival(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let served = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..50 {
            let (session, served) = (&session, &served);
            scope.spawn(move || {
                let granted = wait(&world.service, session, 25_000);
                assert_eq!(granted.status, 200, "{granted:?}");
                served.lock().unwrap().push(number);
                assert_eq!(
                    world.service.release(session, &granted.text("owner_token")).status,
                    200
                );
            });
            world.service.wait_for_waiters(session, number + 1);
        }
        assert_eq!(world.service.release(&session, &owner_token).status, 200);
    });
    assert_eq!(*served.lock().unwrap(), (0..50).collect::<Vec<_>>());
}

fn nobody_is_overtaken_within_a_server_beside_another(world: &World) {
    let other = world.serve(&[]);
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let served = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..12 {
            for service in [&world.service, &other] {
                let (session, served) = (&session, &served);
                scope.spawn(move || {
                    let granted = wait(service, session, 25_000);
                    assert_eq!(granted.status, 200, "{granted:?}");
                    served.lock().unwrap().push((service.address, number));
                    let token = granted.text("owner_token");
                    assert_eq!(service.release(session, &token).status, 200);
                });
                service.wait_for_waiters(session, number + 1);
            }
        }
        assert_eq!(world.service.release(&session, &owner_token).status, 200);
    });
    let served = served.into_inner().unwrap();
    for service in [&world.service, &other] {
        let of_this = served.iter().filter(|(at, _)| *at == service.address);
        let order: Vec<_> = of_this.map(|(_, number)| *number).collect();
        assert_eq!(order, (0..12).collect::<Vec<_>>(), "{served:?}");
    }
}

fn nobody_who_does_not_wait_overtakes_the_line(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let until = Instant::now() + PATIENCE;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiters: Vec<_> = (1..=5)
            .map(|number| {
                let session = &session;
                let waiter = scope.spawn(move || {
                    let granted = wait(&world.service, session, 25_000);
                    assert_eq!(granted.status, 200, "{granted:?}");
                    world.service.release(session, &granted.text("owner_token"))
                });
                world.service.wait_for_waiters(session, number);
                waiter
            })
            .collect();
        // Those in a hurry ask all the time; while anybody is in line, they get nothing.
        for _ in 0..6 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) && Instant::now() < until {
                    let reply = world.service.acquire(&session, json!({}));
                    if reply.status == 200 {
                        assert_eq!(world.service.waiters(&session), 0, "overtook the line");
                        world.service.release(&session, &reply.text("owner_token"));
                    }
                }
            });
        }
        assert_eq!(world.service.release(&session, &owner_token).status, 200);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().status, 200);
        }
        over.store(true, Ordering::SeqCst);
    });
}

fn a_wait_ends_in_time_with_a_plain_refusal(world: &World) {
    let session = Session::new();
    world.service.hold(&session);
    let began = Instant::now();
    let refused = wait(&world.service, &session, 700);
    let waited = began.elapsed();
    refused.assert_held();
    assert!(refused.number("remaining_ms") > 20_000 && refused.retry_after_s.is_some());
    assert!(waited >= Duration::from_millis(700) && waited < Duration::from_secs(20), "{waited:?}");
    assert_eq!(world.service.waiters(&session), 0);
}

fn a_lone_waiter_is_never_forgotten(world: &World) {
    // Nobody else's wait keeps the service's clockwork awake.
    let service = world.serve(&[]);
    let session = Session::new();
    service.acquire(&session, json!({"ttl_ms": 600_000})).assert_granted("new");
    for _ in 0..60 {
        wait(&service, &session, 10).assert_held();
        // Long enough for that to go to sleep.
        thread::sleep(Duration::from_millis(15));
    }
}

fn an_expiry_wakes_the_first_in_line(world: &World) {
    let session = Session::new();
    world.service.acquire(&session, json!({"ttl_ms": 1_500})).assert_granted("new");
    let granted = wait(&world.service, &session, 25_000);
    granted.assert_granted("takeover");
}

type End<'a> = Box<dyn Fn(&Session, &str) + 'a>;

fn a_release_elsewhere_wakes_the_first_in_line(world: &World) {
    let other = world.serve(&[]);
    let ends: [End; 3] = [
        Box::new(|session, owner_token| {
            assert_eq!(other.release(session, owner_token).status, 200);
        }),
        Box::new(|session, _| world.sql(format!("DELETE FROM {TABLE} WHERE {session}"))),
        Box::new(|session, _| world.age(session, 60)),
    ];
    for end in ends {
        let session = Session::new();
        let owner_token = other.hold(&session);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&world.service, &session, 25_000));
            world.service.wait_for_waiters(&session, 1);
            end(&session, &owner_token);
            assert_eq!(waiting.join().unwrap().status, 200);
        });
    }
}

fn a_holder_that_asks_again_does_not_stand_in_line(world: &World) {
    let session = Session::new();
    let owner_token = "00000000000000004711";
    let first = world.service.acquire(&session, json!({"owner_token": owner_token}));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&world.service, &session, 25_000));
        world.service.wait_for_waiters(&session, 1);
        for wait_ms in [0, 20_000] {
            let again = json!({"owner_token": owner_token, "wait_ms": wait_ms});
            let again = world.service.acquire(&session, again);
            again.assert_granted("again");
            assert_eq!(again.number("fencing_token"), first.number("fencing_token"));
        }
        let stranger = json!({"owner_token": "00000000000000004712"});
        world.service.acquire(&session, stranger).assert_held();
        assert_eq!(world.service.release(&session, owner_token).status, 200);
        assert_eq!(waiting.join().unwrap().status, 200);
    });
}

fn a_waiter_that_asks_twice_is_answered_twice(world: &World) {
    let session = Session::new();
    let holder = world.service.hold(&session);
    let fields = json!({"owner_token": "00000000000000004713", "wait_ms": 25_000});
    thread::scope(|scope| {
        let asked: Vec<_> = (1..=2)
            .map(|count| {
                let asked = scope.spawn(|| world.service.acquire(&session, fields.clone()));
                world.service.wait_for_waiters(&session, count);
                asked
            })
            .collect();
        assert_eq!(world.service.release(&session, &holder).status, 200);
        let hows: Vec<_> =
            asked.into_iter().map(|asked| asked.join().unwrap().text("how")).collect();
        assert_eq!(hows, ["new", "again"]);
    });
}

fn a_waiter_whose_client_is_gone_costs_one_ttl_at_most(world: &World) {
    let session = Session::new();
    let holder = world.service.hold(&session);
    let body = session.with(json!({"ttl_ms": 1_000, "wait_ms": 25_000})).to_string();
    let request =
        format!("POST /v1/acquire HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut gone = std::net::TcpStream::connect(world.service.address).unwrap();
    std::io::Write::write_all(&mut gone, request.as_bytes()).unwrap();
    world.service.wait_for_waiters(&session, 1);
    drop(gone);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&world.service, &session, 25_000));
        world.service.wait_for_waiters(&session, 2);
        assert_eq!(world.service.release(&session, &holder).status, 200);
        waiting.join().unwrap().assert_granted("takeover");
    });
}

fn sigterm_answers_every_waiter(world: &World) {
    let mut service = world.serve(&[]);
    let session = Session::new();
    service.hold(&session);
    let (address, count) = (service.address, 20);
    let waiting: Vec<_> = (0..count)
        .map(|_| {
            let body = session.with(json!({"wait_ms": 25_000})).to_string();
            thread::spawn(move || {
                let agent = ureq::Agent::config_builder().http_status_as_error(false).build();
                let url = format!("http://{address}/v1/acquire");
                let reply = ureq::Agent::new_with_config(agent).post(url).send(body).unwrap();
                (reply.status().as_u16(), reply.headers().contains_key("retry-after"))
            })
        })
        .collect();
    service.wait_for_waiters(&session, count);
    service.signal("-TERM");
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), (503, true));
    }
    assert_eq!(service.wait(), Some(0));
}

fn a_thousand_waiters_hold_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    let sessions: Vec<_> = (0..10).map(|_| Session::new()).collect();
    for session in &sessions {
        service.hold(session);
    }
    let mut crowd = Vec::new();
    for number in 0..1_000 {
        let session = &sessions[number % sessions.len()];
        let body = session.with(json!({"wait_ms": 25_000})).to_string();
        let request =
            format!("POST /v1/acquire HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = std::net::TcpStream::connect(service.address).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        crowd.push(stream);
    }
    for session in &sessions {
        service.wait_for_waiters(session, 100);
    }
    // With a worker or a connection for each, nobody else would be served any more.
    for _ in 0..20 {
        let session = Session::new();
        let owner_token = service.hold(&session);
        assert_eq!(service.release(&session, &owner_token).status, 200);
    }
    for session in &sessions {
        assert!(service.waiters(session) > 0, "they still wait");
    }
}

fn a_locked_row_refuses_those_who_wait_for_it(world: &World) {
    let session = Session::new();
    world.store(&session, "garbage");
    let mut neighbour = world.lock_row(&session);
    thread::scope(|scope| {
        let asked: Vec<_> =
            (0..3).map(|_| scope.spawn(|| wait(&world.service, &session, 20_000))).collect();
        for asked in asked {
            asked.join().unwrap().assert_refused(503, "unavailable");
        }
    });
    neighbour.query_drop("ROLLBACK").unwrap();
    world.service.acquire(&session, json!({})).assert_granted("takeover");
}
