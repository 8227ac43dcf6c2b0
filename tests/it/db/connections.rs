//! Connections that were closed, or that the network dropped.

use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Fault, Session, TABLE, World, tests};

tests![
    lost_connections_are_replaced_without_an_error,
    connections_that_the_network_forgot_cost_one_timeout,
    a_lease_that_was_lost_is_not_released_over_a_dead_connection,
];

fn lost_connections_are_replaced_without_an_error(world: &World) {
    let (schema, service) = world.own_service(&["--workers", "4"]);
    let session = Session::new();
    for _ in 0..5 {
        let owner_token = service.hold(&session);
        // A restart of the database ends connections like this, as does its wait_timeout.
        schema.kill_connections();
        let list = service.get("/v1/locks");
        assert_eq!(list.json["locks"].as_array().map(Vec::len), Some(1));
        schema.kill_connections();
        let released = service.release(&session, &owner_token);
        assert_eq!(released.status, 200, "{released:?}");
        assert_eq!(service.get("/readyz").status, 200);
    }
}

fn connections_that_the_network_forgot_cost_one_timeout(world: &World) {
    let (proxy, service) = world.serve_through_proxy(&["--workers", "4"]);
    let is_served = || {
        // This opens four connections, which are idle afterwards.
        service.recovery();
        proxy.set(Fault::Delay(Duration::from_millis(100)));
        service.recovery();
        proxy.set(Fault::None);
        assert!(proxy.connections() > 3, "{}", proxy.connections());
        proxy.forget_connections();
        // A second dead connection would exceed the timeout of the request.
        service.acquire(&Session::new(), json!({})).status == 200
    };
    // The test tries again, because a busy machine may stall.
    assert!((0..3).any(|_| is_served()), "it used several dead connections");
}

fn a_lease_that_was_lost_is_not_released_over_a_dead_connection(world: &World) {
    let own = World::start(world.engine);
    let second = own.serve(&[]);
    let mut conn = own.database.connect();
    // The pool opens connections in the background, and the first KILLs may miss those.
    for number in 0..6 {
        let session = Session::new();
        let lost = own.service.hold(&session);
        own.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
        let successor = (number % 2 == 0).then(|| second.hold(&session));
        let idle = "SELECT id FROM information_schema.processlist \
                    WHERE command = 'Sleep' AND id <> CONNECTION_ID()";
        for id in conn.query::<u64, _>(idle).unwrap() {
            // A connection may have ended before.
            let _ = conn.query_drop(format!("KILL {id}"));
        }
        thread::sleep(Duration::from_millis(200));
        assert_eq!(own.service.release(&session, &lost).status, 409);
        if let Some(successor) = successor {
            assert_eq!(own.service.release(&session, &successor).status, 200);
        }
    }
}
