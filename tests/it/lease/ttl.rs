//! How long a lease lasts, by the clock of the database.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{Service, Session, World, binary, tests};

tests![
    a_lease_lasts_at_least_its_ttl,
    a_ttl_is_cut_to_the_longest_hold,
    the_services_own_clock_changes_nothing,
];

fn a_lease_lasts_at_least_its_ttl(world: &World) {
    let service = world.serve(&["--max-hold-ms", "3600000"]);
    let ttls_ms = [1_000, 1_001, 30_000, 45_500, 3_600_000];
    for (ttl_ms, how) in
        ttls_ms.into_iter().flat_map(|ttl_ms| [(ttl_ms, "new"), (ttl_ms, "takeover")])
    {
        let session = Session::new();
        if how == "takeover" {
            world.store(&session, "garbage");
        }
        let reply = service.acquire(&session, json!({"ttl_ms": ttl_ms}));
        reply.assert_granted(how);
        let remaining_ms = reply.number("remaining_ms");
        assert!(remaining_ms <= ttl_ms && remaining_ms >= ttl_ms / 2, "{remaining_ms} of {ttl_ms}");
        // The fencing token shows when the lease was granted. The stored expiry is in whole
        // seconds, rounded up.
        let lasts_us = world.lasts_us(&session, reply.number("fencing_token"));
        let rounding_us = lasts_us - i64::try_from(ttl_ms * 1_000).unwrap();
        assert!((0..1_000_000).contains(&rounding_us), "ttl {ttl_ms} ms: {rounding_us} us more");
    }
}

fn a_ttl_is_cut_to_the_longest_hold(world: &World) {
    let service = world.serve(&["--max-hold-ms", "5000"]);
    let session = Session::new();
    service.acquire(&session, json!({"ttl_ms": 5_001})).assert_refused(400, "invalid_request");
    let reply = service.acquire(&session, json!({}));
    assert!(reply.number("remaining_ms") <= 5_000, "the default is the longest hold");
}

fn the_services_own_clock_changes_nothing(world: &World) {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    assert!(Path::new(LIBRARY).exists(), "libfaketime is missing: apt-get install faketime");
    for (offset, session) in [("+9h", Session::new()), ("-400d", Session::new())] {
        let wrong_clock = Service::spawn(
            Command::new(binary())
                .args(["serve", "--database-url", &world.database.url(DATABASE)])
                .env("LD_PRELOAD", LIBRARY)
                .env("FAKETIME", offset)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        );
        wrong_clock.wait_until_ready();
        wrong_clock.wait_for_line("clock the database's clock and this machine's are");
        let owner_token = wrong_clock.hold(&session);
        world.service.acquire(&session, json!({})).assert_held();
        world.age(&session, 25);
        wrong_clock.acquire(&session, json!({})).assert_held();
        world.age(&session, 6);
        wrong_clock.acquire(&session, json!({})).assert_granted("takeover");
        assert_eq!(wrong_clock.release(&session, &owner_token).status, 409);
    }
}
