//! One packet of statements for each request.

use std::cell::RefCell;
use std::time::{Duration, Instant};
use std::{array, iter};

use serde_json::json;

use crate::world::{Proxy, Service, Session, World, tests};

tests![each_request_takes_one_round_trip_and_a_takeover_two];

fn each_request_takes_one_round_trip_and_a_takeover_two(world: &World) {
    let proxy = Proxy::start(world.database.address());
    let schema = world.own_table();
    let service = Service::start(&proxy.url(&schema.name), &["--workers", "1"]);
    let count = |request: &dyn Fn()| {
        let now = || [proxy.sent(), proxy.more_statements()];
        let before = now();
        request();
        array::from_fn(|n| now()[n] - before[n])
    };
    let round_trips = || {
        let (session, stale, owner_token) =
            (Session::new(), Session::new(), RefCell::<String>::default());
        service.hold(&stale);
        schema.age(&stale, 31);
        let token = || owner_token.borrow().clone();
        [
            count(&|| owner_token.replace(service.hold(&session)).clear()),
            count(&|| service.acquire(&session, json!({})).assert_held()),
            count(&|| assert_eq!(service.renew(&session, &token(), 30_000).status, 200)),
            count(&|| assert_eq!(service.commit(&session, &token(), "m").status, 200)),
            count(&|| assert_eq!(service.release(&session, &token()).status, 200)),
            count(&|| {
                let takeover = service.acquire(&stale, json!({}));
                takeover.assert_granted("takeover");
            }),
        ]
    };
    // The proxy also counts the background work of the service: its first sweep and measurements,
    // and new connections of the pool. So the test uses the lowest count of several rounds.
    let began = Instant::now();
    let least = iter::repeat_with(round_trips)
        .take_while(|_| began.elapsed() < Duration::from_secs(1))
        .reduce(|a, b| array::from_fn(|n| array::from_fn(|m| a[n][m].min(b[n][m]))));
    assert_eq!(
        least,
        Some([[1, 1], [1, 1], [1, 4], [1, 5], [1, 1], [2, 5]]),
        "round trips, and statements beyond the first: acquire, held, renew, commit, release, takeover"
    );
}
