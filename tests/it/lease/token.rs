//! Fencing tokens rise; owner tokens belong to one session.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::json;

use crate::world::{Service, Session, World, tests};

tests![
    fencing_tokens_rise_even_past_one_from_the_future,
    fencing_tokens_rise_when_two_servers_race_for_one_session,
    an_owner_token_is_good_for_its_own_session_only,
];

fn fencing_tokens_rise_even_past_one_from_the_future(world: &World) {
    let session = Session::new();
    world.store(&session, "2020-01-01 00:00:00.000000499999999999999000000000000000000001");
    let reply = world.service.acquire(&session, json!({}));
    reply.assert_granted("takeover");
    assert_eq!(reply.number("fencing_token"), 4_999_999_999_999_991);
}

fn fencing_tokens_rise_when_two_servers_race_for_one_session(world: &World) {
    let other = world.serve(&[]);
    let (session, last) = (Session::new(), AtomicU64::new(0));
    let race = |service: &Service| -> u64 {
        let mut grants = 0;
        for _ in 0..120 {
            let granted = service.acquire(&session, json!({}));
            if granted.status == 200 {
                // The token is recorded before the release is sent, so a lower one afterwards would
                // belong to a later lease.
                let fencing_token = granted.number("fencing_token");
                let before = last.fetch_max(fencing_token, Ordering::SeqCst);
                assert!(before < fencing_token, "{fencing_token} after {before}");
                let released = service.release(&session, &granted.text("owner_token"));
                assert_eq!(released.status, 200);
                grants += 1;
            }
        }
        grants
    };
    let grants: u64 = thread::scope(|scope| {
        let services = [&world.service, &other];
        let race = &race;
        let racers: Vec<_> = (0..8).map(|n| scope.spawn(move || race(services[n % 2]))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert!(grants > 20, "{grants}");
}

fn an_owner_token_is_good_for_its_own_session_only(world: &World) {
    let service = &world.service;
    let other = Session::new();
    for request in ["renew", "commit", "release", "release with message"] {
        let session = Session::new();
        let token = service.hold(&session);
        let stored = world.stored(&session);
        let reply = match request {
            "renew" => service.renew(&other, &token, 60_000),
            "commit" => service.commit(&other, &token, "m"),
            "release" => service.release(&other, &token),
            _ => service.release_with(&other, &token, "m"),
        };
        assert_eq!((reply.status, &reply.json["reason"]), (409, &json!("lost")));
        assert_eq!(world.stored(&session), stored, "after a {request} of another");
        assert_eq!(service.release(&session, &token).status, 200);
    }
    assert_eq!(world.records(&other), 0);
}
