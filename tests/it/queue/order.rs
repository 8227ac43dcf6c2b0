//! First come, first served.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::json;

use crate::world::{Session, TIMEOUT, World, tests};

tests![
    a_release_hands_the_session_to_the_first_in_line,
    fifty_waiters_are_served_in_the_order_of_their_arrival,
    nobody_is_overtaken_within_a_server_beside_another,
    nobody_who_does_not_wait_overtakes_the_line,
];

fn a_release_hands_the_session_to_the_first_in_line(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| world.service.acquire_waiting(&session, 25_000));
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
                let granted = world.service.acquire_waiting(session, 25_000);
                assert_eq!(granted.status, 200, "{granted:?}");
                served.lock().unwrap().push(number);
                let token = granted.text("owner_token");
                assert_eq!(world.service.release(session, &token).status, 200);
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
                    let granted = service.acquire_waiting(session, 25_000);
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
    let until = Instant::now() + TIMEOUT;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiters: Vec<_> = (1..=5)
            .map(|number| {
                let session = &session;
                let waiter = scope.spawn(move || {
                    let granted = world.service.acquire_waiting(session, 25_000);
                    assert_eq!(granted.status, 200, "{granted:?}");
                    world.service.release(session, &granted.text("owner_token"))
                });
                world.service.wait_for_waiters(session, number);
                waiter
            })
            .collect();
        // These clients do not wait, and constantly send requests.
        for _ in 0..6 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) && Instant::now() < until {
                    let reply = world.service.acquire(&session, json!({}));
                    if reply.status == 200 {
                        assert_eq!(world.service.waiters(&session), 0, "overtook a waiter");
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
