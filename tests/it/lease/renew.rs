//! Renew, and the longest hold.

use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Service, Session, TABLE, World, tests};

tests![
    a_renewed_lease_has_a_new_expiry_and_the_same_tokens,
    a_renew_may_shorten_a_lease,
    what_is_not_a_live_lease_of_this_token_is_lost,
    an_expired_lease_is_never_revived,
    a_stale_holder_cannot_renew_its_successors_lease,
    a_lease_that_expires_while_its_renew_waits_is_not_revived,
    a_renew_is_repeated_and_doubled_without_harm,
    a_renew_beyond_the_longest_hold_changes_nothing,
    a_lease_is_held_no_longer_than_the_longest_hold,
    a_renew_that_waits_for_the_row_keeps_to_the_longest_hold,
];

fn a_renewed_lease_has_a_new_expiry_and_the_same_tokens(world: &World) {
    let session = Session::new();
    let granted = world.service.acquire(&session, json!({}));
    let owner_token = granted.text("owner_token");
    world.age(&session, 20);
    let renewed = world.service.renew(&session, &owner_token, 60_000);
    assert_eq!((renewed.status, &renewed.json["renewed"]), (200, &json!(true)), "{renewed:?}");
    assert_eq!(renewed.number("fencing_token"), granted.number("fencing_token"));
    assert!((30_000..=60_000).contains(&renewed.number("remaining_ms")), "{renewed:?}");
    let stored = world.stored(&session).unwrap();
    assert_eq!(stored.len(), 62);
    assert!(stored.ends_with(&owner_token));
    world.age(&session, 50);
    world.service.acquire(&session, json!({})).assert_held();
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
}

fn a_renew_may_shorten_a_lease(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let renewed = world.service.renew(&session, &owner_token, 5_000);
    assert!(renewed.number("remaining_ms") <= 5_000);
    let held = world.service.acquire(&session, json!({}));
    held.assert_held();
    assert!(held.number("remaining_ms") <= 6_000, "{held:?}");
}

fn what_is_not_a_live_lease_of_this_token_is_lost(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let renew = |token: &str| world.service.renew(&session, token, 30_000);
    renew("00000000000000000001").assert_lost("renewed");
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
    renew(&owner_token).assert_lost("renewed");
    let successor = world.service.hold(&session);
    renew(&owner_token).assert_lost("renewed");
    world.sql(format!("UPDATE {TABLE} SET timestamp = NOW() WHERE {session}"));
    renew(&successor).assert_lost("renewed");
    assert_eq!(world.stored(&session).unwrap().len(), 19, "the old program's row is as it was");
}

fn an_expired_lease_is_never_revived(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    world.age(&session, 31);
    let stored = world.stored(&session);
    world.service.renew(&session, &owner_token, 30_000).assert_lost("renewed");
    assert_eq!(world.stored(&session), stored);
}

fn a_stale_holder_cannot_renew_its_successors_lease(world: &World) {
    let session = Session::new();
    let stale = world.service.hold(&session);
    world.age(&session, 31);
    world.service.hold(&session);
    let before = world.stored(&session);
    let lost = world.service.renew(&session, &stale, 60_000);
    lost.assert_lost("renewed");
    assert_eq!(world.stored(&session), before);
}

fn a_lease_that_expires_while_its_renew_waits_is_not_revived(world: &World) {
    let session = Session::new();
    let owner_token =
        world.service.acquire(&session, json!({"ttl_ms": 60_000})).text("owner_token");
    world
        .expire_behind_row_lock(&session, |service| service.renew(&session, &owner_token, 30_000))
        .assert_lost("renewed");
    world.service.acquire(&session, json!({})).assert_granted("takeover");
}

fn a_renew_is_repeated_and_doubled_without_harm(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let other = world.serve(&[]);
    let services = [&world.service, &other];
    let renew =
        |service: &Service| [(); 10].map(|()| service.renew(&session, &owner_token, 30_000).status);
    thread::scope(|scope| {
        let renew = &renew;
        let renews: Vec<_> =
            (0..16).map(|number| scope.spawn(move || renew(services[number % 2]))).collect();
        for renews in renews {
            assert_eq!(renews.join().unwrap(), [200; 10]);
        }
    });
}

fn a_renew_beyond_the_longest_hold_changes_nothing(world: &World) {
    let session = Session::new();
    let granted = world.service.acquire(&session, json!({"ttl_ms": 60_000}));
    let owner_token = granted.text("owner_token");
    // By its fencing token, the lease was granted 100 s ago. It still has a minute.
    world.set_fencing_token(&session, granted.number("fencing_token") - 100_000_000);
    let before = world.stored(&session);
    let stricter = world.serve(&["--max-hold-ms", "60000"]);
    let refused = stricter.renew(&session, &owner_token, 30_000);
    refused.assert(409, &json!({"renewed": false, "reason": "max_hold"}));
    assert_eq!(world.stored(&session), before);
}

fn a_lease_is_held_no_longer_than_the_longest_hold(world: &World) {
    let service = world.serve(&["--max-hold-ms", "60000"]);
    let session = Session::new();
    let granted = service.acquire(&session, json!({}));
    let owner_token = granted.text("owner_token");
    // By its fencing token, the lease was granted 50 s ago.
    let granted_us = granted.number("fencing_token") - 50_000_000;
    world.set_fencing_token(&session, granted_us);
    let renewed = service.renew(&session, &owner_token, 30_000);
    assert_eq!(renewed.status, 200);
    assert!((5_000..=10_000).contains(&renewed.number("remaining_ms")), "{renewed:?}");
    assert!(world.lasts_us(&session, granted_us) <= 61_000_000);
    world.set_fencing_token(&session, granted_us - 10_000_000);
    let max_hold = json!({"renewed": false, "reason": "max_hold"});
    service.renew(&session, &owner_token, 30_000).assert(409, &max_hold);
    world.age(&session, 60);
    service.renew(&session, &owner_token, 30_000).assert(409, &max_hold);
    service.acquire(&session, json!({})).assert_granted("takeover");
    service.renew(&session, &owner_token, 30_000).assert_lost("renewed");
}

fn a_renew_that_waits_for_the_row_keeps_to_the_longest_hold(world: &World) {
    let service = world.serve(&["--max-hold-ms", "60000"]);
    let session = Session::new();
    let granted = service.acquire(&session, json!({}));
    let granted_us = granted.number("fencing_token") - 57_000_000;
    world.set_fencing_token(&session, granted_us);
    let mut other_program = world.lock_row(&session);
    let renewed = thread::scope(|scope| {
        let renewed = scope.spawn(|| service.renew(&session, &granted.text("owner_token"), 30_000));
        thread::sleep(Duration::from_millis(800));
        other_program.query_drop("ROLLBACK").unwrap();
        renewed.join().unwrap()
    });
    assert!(matches!(renewed.status, 200 | 503), "{renewed:?}");
    if renewed.status == 200 {
        // Rounding adds up to a second.
        let lasts_us = world.lasts_us(&session, granted_us);
        assert!(lasts_us < 61_000_000, "{lasts_us}");
    }
}
