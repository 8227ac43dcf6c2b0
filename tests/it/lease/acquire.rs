//! Acquire: grants, refusals, takeovers, and the same owner token again.

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Service, Session, TABLE, World, tests};

tests![
    a_free_session_is_granted,
    a_held_session_is_refused_with_the_time_left,
    a_rejection_writes_nothing,
    a_crashed_holder_is_replaced_after_its_expiry_and_not_before,
    the_same_owner_token_gets_its_own_lease_again,
    the_same_owner_token_after_its_expiry_is_a_takeover,
    a_sister_table_with_another_primary_key_works_as_well,
];

fn a_free_session_is_granted(world: &World) {
    let session = Session::new();
    let reply = world.service.acquire(&session, json!({}));
    reply.assert_granted("new");
    assert_eq!(reply.json["granted"], true);
    let owner_token = reply.text("owner_token");
    assert!(
        owner_token.len() == 20 && owner_token.bytes().all(|b| b.is_ascii_digit()),
        "{owner_token}"
    );
    let remaining_ms = reply.number("remaining_ms");
    assert!((15_000..=30_000).contains(&remaining_ms), "{remaining_ms}");

    let stored = world.stored(&session).unwrap();
    let fencing_token = reply.number("fencing_token").to_string();
    assert_eq!((stored.len(), fencing_token.len()), (62, 16));
    assert_eq!(stored[26..], fencing_token + &owner_token);
    assert_eq!(&stored[19..26], ".000000");
}

fn a_held_session_is_refused_with_the_time_left(world: &World) {
    let session = Session::new();
    world.service.acquire(&session, json!({"ttl_ms": 12_000})).assert_granted("new");
    let reply = world.service.acquire(&session, json!({}));
    reply.assert_held();
    assert_eq!((&reply.json["granted"], &reply.json["waiters"]), (&json!(false), &json!(0)));
    let remaining_ms = reply.number("remaining_ms");
    assert!((1..=13_000).contains(&remaining_ms), "{remaining_ms}");
    assert_eq!(reply.retry_after_s, Some(remaining_ms.div_ceil(1_000)));

    let session = Session::new();
    world.service.acquire(&session, json!({"ttl_ms": 600_000})).assert_granted("new");
    let reply = world.service.acquire(&session, json!({}));
    assert_eq!(reply.retry_after_s, Some(30), "however long the lease");
}

fn a_rejection_writes_nothing(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let session = Session::new();
    service.hold(&session);
    let row = || -> (u64, String) {
        let sql = format!("SELECT id_sessionX, timestamp FROM {TABLE} WHERE {session}");
        schema.connect().query_first(sql).unwrap().unwrap()
    };
    let before = row();
    for _ in 0..20 {
        service.acquire(&session, json!({})).assert_held();
    }
    assert_eq!(row(), before);
}

fn a_crashed_holder_is_replaced_after_its_expiry_and_not_before(world: &World) {
    let session = Session::new();
    let first = world.service.acquire(&session, json!({"ttl_ms": 60_000}));
    world.age(&session, 50);
    world.service.acquire(&session, json!({})).assert_held();
    world.age(&session, 12);
    let second = world.service.acquire(&session, json!({}));
    second.assert_granted("takeover");
    assert_ne!(second.text("owner_token"), first.text("owner_token"));
    assert!(second.number("fencing_token") > first.number("fencing_token"));
    world.service.acquire(&session, json!({})).assert_held();
}

fn the_same_owner_token_gets_its_own_lease_again(world: &World) {
    let session = Session::new();
    let owner_token = "00000000000000000042";
    let first = world.service.acquire(&session, json!({"owner_token": owner_token}));
    first.assert_granted("new");
    let stored = world.stored(&session);
    let again =
        world.service.acquire(&session, json!({"owner_token": owner_token, "ttl_ms": 90_000}));
    again.assert_granted("again");
    assert_eq!(again.text("owner_token"), owner_token);
    assert_eq!(again.number("fencing_token"), first.number("fencing_token"));
    assert_eq!(world.stored(&session), stored, "the expiry stays");
    assert!(again.number("remaining_ms") <= 31_000);
}

fn the_same_owner_token_after_its_expiry_is_a_takeover(world: &World) {
    let session = Session::new();
    let owner_token = "00000000000000000043";
    let first = world.service.acquire(&session, json!({"owner_token": owner_token}));
    world.age(&session, 31);
    let second = world.service.acquire(&session, json!({"owner_token": owner_token}));
    second.assert_granted("takeover");
    assert!(second.number("fencing_token") > first.number("fencing_token"));
}

fn a_sister_table_with_another_primary_key_works_as_well(world: &World) {
    let schema = world.schema();
    schema.sql(
        "CREATE TABLE wasapBot_session_nodepath (id_sessionY INT AUTO_INCREMENT PRIMARY KEY, \
         id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, \
         UNIQUE KEY per_session (id_prospect, id_device))",
    );
    let service = Service::start(&schema.url(), &["--table", "wasapBot_session_nodepath"]);
    let session = Session::new();
    let owner_token = service.hold(&session);
    service.acquire(&session, json!({})).assert_held();
    assert_eq!(service.release(&session, &owner_token).status, 200);
}
