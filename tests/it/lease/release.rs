//! Releases by owners and by operators.

use std::thread;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Service, Session, TABLE, World, tests};

tests![
    a_release_deletes_the_row_and_frees_the_session,
    a_stale_holder_cannot_release,
    an_expired_lease_is_lost_even_if_nobody_took_it,
    a_wrong_owner_token_releases_nothing,
    a_release_ends_a_lease_that_was_renewed_meanwhile,
    force_ends_any_lease,
    force_ends_only_the_lease_that_was_named,
    force_leaves_a_lease_alone_that_took_the_place_of_the_named_one,
    force_reaches_ids_of_any_spelling,
];

fn a_release_deletes_the_row_and_frees_the_session(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    world.service.release(&session, &owner_token).assert(200, &json!({"released": true}));
    assert_eq!(world.stored(&session), None);
    world.service.acquire(&session, json!({})).assert_granted("new");
}

fn a_stale_holder_cannot_release(world: &World) {
    let session = Session::new();
    let crashed = world.service.hold(&session);
    world.age(&session, 31);
    world.service.acquire(&session, json!({})).assert_granted("takeover");
    let stored = world.stored(&session);
    world.service.release(&session, &crashed).assert_lost("released");
    assert_eq!(world.stored(&session), stored);
}

fn an_expired_lease_is_lost_even_if_nobody_took_it(world: &World) {
    let session = Session::new();
    let late = world.service.hold(&session);
    world.age(&session, 31);
    world.service.release(&session, &late).assert_lost("released");
    assert!(world.stored(&session).is_some(), "nothing was deleted");
}

fn a_wrong_owner_token_releases_nothing(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let stored = world.stored(&session);
    let last = if owner_token.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &owner_token[..19]);
    world.service.release(&session, &wrong).assert_lost("released");
    assert_eq!(world.stored(&session), stored);
    let free = Session::new();
    world.service.release(&free, &wrong).assert_lost("released");
}

fn a_release_ends_a_lease_that_was_renewed_meanwhile(world: &World) {
    let service = world.serve(&[]);
    let session = Session::new();
    let owner_token = service.hold(&session);
    let mut other_program = world.lock_row(&session);
    thread::scope(|scope| {
        let released = scope.spawn(|| service.release(&session, &owner_token));
        world.wait_for_write(&session);
        // A renew through another server has this effect.
        let renew = format!(
            "UPDATE {TABLE} SET timestamp = CONCAT(DATE_FORMAT(NOW() + INTERVAL 60 SECOND, '%Y-%m-%d %H:%i:%s'), \
             SUBSTRING(timestamp, 20)) WHERE {session}"
        );
        other_program.query_drop(renew).unwrap();
        other_program.query_drop("COMMIT").unwrap();
        assert_eq!(released.join().unwrap().status, 200);
    });
    assert_eq!(world.stored(&session), None);
}

fn force_ends_any_lease(world: &World) {
    let session = Session::new();
    let not_held = json!({"released": false, "reason": "not_held"});
    world.service.force(&session, json!({})).assert(409, &not_held);
    world.service.hold(&session);
    world.service.force(&session, json!({})).assert(200, &json!({"released": true}));
    assert_eq!(world.stored(&session), None);
    world.service.hold(&session);
    world.age(&session, 31);
    world.service.force(&session, json!({})).assert(409, &not_held);
    world.service.wait_for_line(&format!(
        "Session lock released by force id_prospect=\"{}\"",
        session.prospect
    ));
}

fn force_ends_only_the_lease_that_was_named(world: &World) {
    let session = Session::new();
    let fencing_token = world.service.acquire(&session, json!({})).number("fencing_token");
    let named = |number: u64| world.service.force(&session, json!({"fencing_token": number}));
    assert_eq!((named(fencing_token - 1).status, named(fencing_token + 1).status), (409, 409));
    assert!(world.stored(&session).is_some());
    assert_eq!(named(fencing_token).status, 200);
    world.store(&session, "2099-01-01 00:00:00");
    assert_eq!(named(fencing_token).status, 409, "an old program's row has no fencing token");
}

fn force_leaves_a_lease_alone_that_took_the_place_of_the_named_one(world: &World) {
    let (session, model) = (Session::new(), Session::new());
    let granted = world.service.acquire(&session, json!({}));
    world.service.hold(&model);
    let next = world.stored(&model).unwrap();
    let mut other_program = world.lock_row(&session);
    thread::scope(|scope| {
        let fields = json!({"fencing_token": granted.number("fencing_token")});
        let forced = scope.spawn(|| world.service.force(&session, fields));
        world.wait_for_write(&session);
        let takeover = format!("UPDATE {TABLE} SET timestamp = '{next}' WHERE {session}");
        other_program.query_drop(takeover).unwrap();
        other_program.query_drop("COMMIT").unwrap();
        let forced = forced.join().unwrap();
        forced.assert(409, &json!({"released": false, "reason": "not_held"}));
    });
    assert_eq!(world.stored(&session), Some(next));
}

fn force_reaches_ids_of_any_spelling(world: &World) {
    for prospect in [" 60123 ", "kélé 😀", "a'b\"c\\", "%_/?#"] {
        let session = Session { prospect: prospect.to_owned(), ..Session::new() };
        world.store(&session, "2099-01-01 00:00:00");
        assert_eq!(world.service.get(&session.path()).json["held"], true, "{prospect:?}");
        assert_eq!(world.service.force(&session, json!({})).status, 200, "{prospect:?}");
        assert_eq!(world.service.get(&session.path()).json["held"], false, "{prospect:?}");
    }
    // A column of this character set cannot store the emoji, so that session is not held.
    let schema = world.own_table();
    schema.sql(&format!("ALTER TABLE {TABLE} CONVERT TO CHARACTER SET latin1"));
    let service = Service::start(&schema.url(), &[]);
    let session = Session { prospect: "😀".to_owned(), ..Session::new() };
    service.get(&session.path()).assert(200, &json!({"held": false}));
    service.get("/v1/locks?id_device=%F0%9F%98%80").assert(200, &json!({"locks": []}));
    let plain = Session::new();
    let owner_token = service.hold(&plain);
    assert_eq!(service.release(&plain, &owner_token).status, 200);
}
