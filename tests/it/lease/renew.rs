//! A lease that lasts exactly as long as the work: renew, and the longest hold.

use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Session, TABLE, World, tests};

tests![
    a_renewed_lease_has_a_new_expiry_and_the_same_tokens,
    a_renew_may_shorten_a_lease,
    what_is_not_a_live_lease_of_this_token_is_lost,
    a_stale_holder_cannot_renew_its_successors_lease,
    an_expired_lease_is_never_revived,
    a_lease_that_expires_while_its_renew_waits_is_not_revived,
    a_renew_is_repeated_and_doubled_without_harm,
    a_release_ends_a_lease_that_was_renewed_under_its_hands,
    a_lease_is_held_no_longer_than_the_longest_hold,
    a_renew_beyond_the_longest_hold_changes_nothing,
    a_renew_that_waits_for_the_row_keeps_to_the_longest_hold,
];

const LOST: &str = r#"{"renewed":false,"reason":"lost"}"#;

fn lost() -> serde_json::Value {
    serde_json::from_str(LOST).unwrap()
}

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
    renew("00000000000000000001").assert(409, &lost());
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
    renew(&owner_token).assert(409, &lost());
    let heir = world.service.hold(&session);
    renew(&owner_token).assert(409, &lost());
    world.sql(format!("UPDATE {TABLE} SET timestamp = NOW() WHERE {session}"));
    renew(&heir).assert(409, &lost());
    assert_eq!(world.stored(&session).unwrap().len(), 19, "the neighbour's row is as it was");
}

fn an_expired_lease_is_never_revived(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    world.age(&session, 31);
    let stored = world.stored(&session);
    world.service.renew(&session, &owner_token, 30_000).assert(409, &lost());
    assert_eq!(world.stored(&session), stored);
}

fn a_stale_holder_cannot_renew_its_successors_lease(world: &World) {
    let session = Session::new();
    let stale = world.service.hold(&session);
    world.age(&session, 31);
    world.service.hold(&session);
    let before = world.stored(&session);
    let lost = world.service.renew(&session, &stale, 60_000);
    lost.assert(409, &json!({"renewed": false, "reason": "lost"}));
    assert_eq!(world.stored(&session), before);
}

fn a_lease_that_expires_while_its_renew_waits_is_not_revived(world: &World) {
    let session = Session::new();
    let owner_token =
        world.service.acquire(&session, json!({"ttl_ms": 60_000})).text("owner_token");
    world
        .expire_behind_a_lock(&session, |service| service.renew(&session, &owner_token, 30_000))
        .assert(409, &lost());
    world.service.acquire(&session, json!({})).assert_granted("takeover");
}

fn a_renew_is_repeated_and_doubled_without_harm(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let other = world.serve(&[]);
    thread::scope(|scope| {
        let services = [&world.service, &other];
        let renews: Vec<_> = (0..16)
            .map(|number| {
                let (service, session, owner_token) =
                    (services[number % 2], &session, &owner_token);
                scope.spawn(move || {
                    (0..10)
                        .map(|_| service.renew(session, owner_token, 30_000).status)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for renews in renews {
            assert_eq!(renews.join().unwrap(), [200; 10]);
        }
    });
}

fn a_release_ends_a_lease_that_was_renewed_under_its_hands(world: &World) {
    let service = world.serve(&[]);
    let session = Session::new();
    let owner_token = service.hold(&session);
    let mut neighbour = world.lock_row(&session);
    thread::scope(|scope| {
        let released = scope.spawn(|| service.release(&session, &owner_token));
        world.wait_for_write(&session);
        // As a renew through another server does.
        let renew = format!(
            "UPDATE {TABLE} SET timestamp = CONCAT(DATE_FORMAT(NOW() + INTERVAL 60 SECOND, '%Y-%m-%d %H:%i:%s'), \
             SUBSTRING(timestamp, 20)) WHERE {session}"
        );
        neighbour.query_drop(renew).unwrap();
        neighbour.query_drop("COMMIT").unwrap();
        assert_eq!(released.join().unwrap().status, 200);
    });
    assert_eq!(world.stored(&session), None);
}

fn a_renew_beyond_the_longest_hold_changes_nothing(world: &World) {
    let session = Session::new();
    let granted = world.service.acquire(&session, json!({"ttl_ms": 60_000}));
    let owner_token = granted.text("owner_token");
    // Granted 100 s ago, by its fencing token; it still has a minute.
    let granted_us = granted.number("fencing_token") - 100_000_000;
    world.sql(format!(
        "UPDATE {TABLE} SET timestamp = INSERT(timestamp, 27, 16, '{granted_us}') WHERE {session}"
    ));
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
    // Granted 50 s ago, by its fencing token, and renewed since.
    let granted_us = granted.number("fencing_token") - 50_000_000;
    world.sql(format!(
        "UPDATE {TABLE} SET timestamp = INSERT(timestamp, 27, 16, '{granted_us}') WHERE {session}"
    ));
    let renewed = service.renew(&session, &owner_token, 30_000);
    assert_eq!(renewed.status, 200);
    assert!((5_000..=10_000).contains(&renewed.number("remaining_ms")), "{renewed:?}");
    let beyond: Option<bool> = world
        .rows(format!(
            "SELECT TIMESTAMPDIFF(MICROSECOND, FROM_UNIXTIME({granted_us} / 1000000), timestamp) + 30000000 > 61000000 \
             FROM {TABLE} WHERE {session}"
        ))
        .pop();
    assert_eq!(beyond, Some(false));
    let granted_us = granted_us - 10_000_000;
    world.sql(format!(
        "UPDATE {TABLE} SET timestamp = INSERT(timestamp, 27, 16, '{granted_us}') WHERE {session}"
    ));
    let max_hold = json!({"renewed": false, "reason": "max_hold"});
    service.renew(&session, &owner_token, 30_000).assert(409, &max_hold);
    world.age(&session, 60);
    service.renew(&session, &owner_token, 30_000).assert(409, &max_hold);
    service.acquire(&session, json!({})).assert_granted("takeover");
    service.renew(&session, &owner_token, 30_000).assert(409, &lost());
}

fn a_renew_that_waits_for_the_row_keeps_to_the_longest_hold(world: &World) {
    let service = world.serve(&["--max-hold-ms", "60000"]);
    let session = Session::new();
    let granted = service.acquire(&session, json!({}));
    let granted_us = granted.number("fencing_token") - 57_000_000;
    world.sql(format!(
        "UPDATE {TABLE} SET timestamp = INSERT(timestamp, 27, 16, '{granted_us}') WHERE {session}"
    ));
    let mut neighbour = world.lock_row(&session);
    let renewed = thread::scope(|scope| {
        let renewed = scope.spawn(|| service.renew(&session, &granted.text("owner_token"), 30_000));
        thread::sleep(Duration::from_millis(800));
        neighbour.query_drop("ROLLBACK").unwrap();
        renewed.join().unwrap()
    });
    assert!(matches!(renewed.status, 200 | 503), "{renewed:?}");
    if renewed.status == 200 {
        let lasts_us: Option<i64> = world
            .rows(format!(
                "SELECT TIMESTAMPDIFF(MICROSECOND, FROM_UNIXTIME({granted_us} / 1000000), timestamp) + 30000000 \
                 FROM {TABLE} WHERE {session}"
            ))
            .pop();
        // A whole second of rounding, and no more.
        assert!(lasts_us.is_some_and(|lasts_us| lasts_us < 61_000_000), "{lasts_us:?}");
    }
}
