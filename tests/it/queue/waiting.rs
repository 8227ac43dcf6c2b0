//! Waiters: what wakes them, what ends their wait, and their cost.

use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Session, TABLE, World, raw_post, tests};

tests![
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

fn a_wait_ends_in_time_with_a_plain_refusal(world: &World) {
    let session = Session::new();
    world.service.hold(&session);
    let began = Instant::now();
    let refused = world.service.acquire_waiting(&session, 700);
    let waited = began.elapsed();
    refused.assert_held();
    assert!(refused.number("remaining_ms") > 20_000 && refused.retry_after_s.is_some());
    assert!(waited >= Duration::from_millis(700) && waited < Duration::from_secs(20), "{waited:?}");
    assert_eq!(world.service.waiters(&session), 0);
}

fn a_lone_waiter_is_never_forgotten(world: &World) {
    // No other wait keeps the service's waiting thread awake.
    let service = world.serve(&[]);
    let session = Session::new();
    service.acquire(&session, json!({"ttl_ms": 600_000})).assert_granted("new");
    for _ in 0..60 {
        service.acquire_waiting(&session, 10).assert_held();
        // Long enough that the thread goes to sleep.
        thread::sleep(Duration::from_millis(15));
    }
}

fn an_expiry_wakes_the_first_in_line(world: &World) {
    let session = Session::new();
    world.service.acquire(&session, json!({"ttl_ms": 1_500})).assert_granted("new");
    let granted = world.service.acquire_waiting(&session, 25_000);
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
            let waiting = scope.spawn(|| world.service.acquire_waiting(&session, 25_000));
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
        let waiting = scope.spawn(|| world.service.acquire_waiting(&session, 25_000));
        world.service.wait_for_waiters(&session, 1);
        for wait_ms in [0, 20_000] {
            let again = json!({"owner_token": owner_token, "wait_ms": wait_ms});
            let again = world.service.acquire(&session, again);
            again.assert_granted("again");
            assert_eq!(again.number("fencing_token"), first.number("fencing_token"));
        }
        let other_token = json!({"owner_token": "00000000000000004712"});
        world.service.acquire(&session, other_token).assert_held();
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
    let fields = json!({"ttl_ms": 1_000, "wait_ms": 25_000});
    let gone = world.service.endpoint.send(raw_post("/v1/acquire", "", session.with(fields)));
    world.service.wait_for_waiters(&session, 1);
    drop(gone);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| world.service.acquire_waiting(&session, 25_000));
        world.service.wait_for_waiters(&session, 2);
        assert_eq!(world.service.release(&session, &holder).status, 200);
        waiting.join().unwrap().assert_granted("takeover");
    });
}

fn sigterm_answers_every_waiter(world: &World) {
    let mut service = world.serve(&[]);
    let session = Session::new();
    service.hold(&session);
    thread::scope(|scope| {
        let wait = || service.acquire_waiting(&session, 25_000);
        let waiting = [(); 20].map(|()| scope.spawn(wait));
        service.wait_for_waiters(&session, 20);
        service.signal("-TERM");
        for waiting in waiting {
            let reply = waiting.join().unwrap();
            assert_eq!((reply.status, reply.retry_after_s.is_some()), (503, true));
        }
    });
    assert_eq!(service.wait(), Some(0));
}

fn a_thousand_waiters_hold_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    let sessions: Vec<_> = (0..10).map(|_| Session::new()).collect();
    for session in &sessions {
        service.hold(session);
    }
    let wait = |number: usize| {
        let fields = sessions[number % sessions.len()].with(json!({"wait_ms": 25_000}));
        service.endpoint.send(raw_post("/v1/acquire", "", fields))
    };
    let _waiting: Vec<_> = (0..1_000).map(wait).collect();
    for session in &sessions {
        service.wait_for_waiters(session, 100);
    }
    // If each waiter used a worker or a database connection, no other request would be served.
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
    let mut other_program = world.lock_row(&session);
    thread::scope(|scope| {
        let asked: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| world.service.acquire_waiting(&session, 20_000)))
            .collect();
        for asked in asked {
            asked.join().unwrap().assert_refused(503, "unavailable");
        }
    });
    other_program.query_drop("ROLLBACK").unwrap();
    world.service.acquire(&session, json!({})).assert_granted("takeover");
}
