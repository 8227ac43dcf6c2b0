//! What a lease is: acquire, release, expiry, takeover, tokens.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Service, Session, TABLE, World, binary, tests, write};

tests![
    a_free_session_is_granted,
    a_held_session_is_refused_with_the_time_left,
    a_rejection_writes_nothing,
    a_release_deletes_the_row_and_frees_the_session,
    a_stale_holder_cannot_release,
    an_expired_lease_is_lost_even_if_nobody_took_it,
    a_wrong_owner_token_releases_nothing,
    a_crashed_holder_is_replaced_after_its_expiry_and_not_before,
    a_takeover_burns_no_id,
    the_same_owner_token_gets_its_own_lease_again,
    the_same_owner_token_after_its_expiry_is_a_takeover,
    fencing_tokens_rise_even_past_one_from_the_future,
    a_lease_lasts_at_least_its_ttl,
    a_ttl_is_cut_to_the_longest_hold,
    letter_case_does_not_distinguish_sessions,
    other_devices_and_prospects_are_other_sessions,
    force_ends_any_lease,
    force_ends_only_the_lease_that_was_named,
    force_leaves_a_lease_alone_that_took_the_place_of_the_named_one,
    force_reaches_ids_of_any_spelling,
    looking_shows_who_holds_but_never_the_owner_token,
    each_outcome_has_its_log_line_and_no_line_has_a_token,
    a_sister_table_with_another_primary_key_works_as_well,
    the_services_own_clock_changes_nothing,
    fencing_tokens_rise_when_two_servers_race_for_one_session,
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
    let schema = world.own_table();
    let service = Service::start(&schema.url(), &[]);
    let session = Session::new();
    service.hold(&session);
    let row = |conn: &mut mysql::Conn| -> (u64, String) {
        conn.query_first(format!("SELECT id_sessionX, timestamp FROM {TABLE} WHERE {session}"))
            .unwrap()
            .unwrap()
    };
    let before = row(&mut schema.connect());
    for _ in 0..20 {
        service.acquire(&session, json!({})).assert_held();
    }
    assert_eq!(row(&mut schema.connect()), before);
}

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
    world
        .service
        .release(&session, &crashed)
        .assert(409, &json!({"released": false, "reason": "lost"}));
    assert_eq!(world.stored(&session), stored);
}

fn an_expired_lease_is_lost_even_if_nobody_took_it(world: &World) {
    let session = Session::new();
    let late = world.service.hold(&session);
    world.age(&session, 31);
    world
        .service
        .release(&session, &late)
        .assert(409, &json!({"released": false, "reason": "lost"}));
    assert!(world.stored(&session).is_some(), "nothing was deleted");
}

fn a_wrong_owner_token_releases_nothing(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let stored = world.stored(&session);
    let last = if owner_token.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &owner_token[..19]);
    world
        .service
        .release(&session, &wrong)
        .assert(409, &json!({"released": false, "reason": "lost"}));
    assert_eq!(world.stored(&session), stored);
    let free = Session::new();
    world.service.release(&free, &wrong).assert(409, &json!({"released": false, "reason": "lost"}));
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

fn a_takeover_burns_no_id(world: &World) {
    let session = Session::new();
    world.service.hold(&session);
    let key = || world.rows::<u64>(format!("SELECT id_sessionX FROM {TABLE} WHERE {session}"));
    let before = key();
    world.age(&session, 31);
    world.service.acquire(&session, json!({})).assert_granted("takeover");
    assert_eq!(key(), before);
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

fn fencing_tokens_rise_even_past_one_from_the_future(world: &World) {
    let session = Session::new();
    world.store(&session, "2020-01-01 00:00:00.000000499999999999999000000000000000000001");
    let reply = world.service.acquire(&session, json!({}));
    reply.assert_granted("takeover");
    assert_eq!(reply.number("fencing_token"), 4_999_999_999_999_991);
}

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
        // Granted at the fencing token's instant, so the stored expiry must lie ttl to ttl + 1 s after it.
        let granted_us = reply.number("fencing_token");
        let lasts_us: i64 = world
            .rows(format!(
                "SELECT TIMESTAMPDIFF(MICROSECOND, FROM_UNIXTIME({granted_us} / 1000000), timestamp) + 30000000 \
                 FROM {TABLE} WHERE {session}"
            ))
            .pop()
            .unwrap();
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

fn letter_case_does_not_distinguish_sessions(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let shouted = Session { device: session.device.to_uppercase(), prospect: session.prospect };
    world.service.acquire(&shouted, json!({})).assert_held();
    world.service.release(&shouted, &owner_token).assert(200, &json!({"released": true}));
}

fn other_devices_and_prospects_are_other_sessions(world: &World) {
    let (one, two) = (Session::new(), Session::new());
    world.service.hold(&one);
    world.service.hold(&Session { device: one.device.clone(), prospect: two.prospect.clone() });
    world.service.hold(&Session { device: two.device.clone(), prospect: one.prospect.clone() });
    let swapped = Session { device: one.prospect, prospect: one.device };
    world.service.hold(&swapped);
}

fn force(world: &World, session: &Session, mut fields: serde_json::Value) -> crate::world::Reply {
    fields["force"] = json!(true);
    world.service.post("/v1/release", session.with(fields))
}

fn force_leaves_a_lease_alone_that_took_the_place_of_the_named_one(world: &World) {
    let (session, model) = (Session::new(), Session::new());
    let granted = world.service.acquire(&session, json!({}));
    world.service.hold(&model);
    let next = world.stored(&model).unwrap();
    let mut neighbour = world.lock_row(&session);
    thread::scope(|scope| {
        let fields = json!({"fencing_token": granted.number("fencing_token")});
        let forced = scope.spawn(|| force(world, &session, fields));
        world.wait_for_write(&session);
        let takeover = format!("UPDATE {TABLE} SET timestamp = '{next}' WHERE {session}");
        neighbour.query_drop(takeover).unwrap();
        neighbour.query_drop("COMMIT").unwrap();
        let forced = forced.join().unwrap();
        forced.assert(409, &json!({"released": false, "reason": "not_held"}));
    });
    assert_eq!(world.stored(&session), Some(next));
}

fn force_ends_any_lease(world: &World) {
    let session = Session::new();
    let not_held = json!({"released": false, "reason": "not_held"});
    force(world, &session, json!({})).assert(409, &not_held);
    world.service.hold(&session);
    force(world, &session, json!({})).assert(200, &json!({"released": true}));
    assert_eq!(world.stored(&session), None);
    world.service.hold(&session);
    world.age(&session, 31);
    force(world, &session, json!({})).assert(409, &not_held);
    world.service.wait_for_line(&format!(
        "Session lock released by force id_prospect=\"{}\"",
        session.prospect
    ));
}

fn force_ends_only_the_lease_that_was_named(world: &World) {
    let session = Session::new();
    let fencing_token = world.service.acquire(&session, json!({})).number("fencing_token");
    let named = |number: u64| force(world, &session, json!({"fencing_token": number}));
    assert_eq!((named(fencing_token - 1).status, named(fencing_token + 1).status), (409, 409));
    assert!(world.stored(&session).is_some());
    assert_eq!(named(fencing_token).status, 200);
    world.store(&session, "2099-01-01 00:00:00");
    assert_eq!(named(fencing_token).status, 409, "an old program's row has no fencing token");
}

fn force_reaches_ids_of_any_spelling(world: &World) {
    for prospect in [" 60123 ", "kélé 😀", "a'b\"c\\", "%_/?#"] {
        let session = Session { prospect: prospect.to_owned(), ..Session::new() };
        world.store(&session, "2099-01-01 00:00:00");
        assert_eq!(world.service.get(&session.path()).json["held"], true, "{prospect:?}");
        assert_eq!(force(world, &session, json!({})).status, 200, "{prospect:?}");
        assert_eq!(world.service.get(&session.path()).json["held"], false, "{prospect:?}");
    }
    // A column of another character set cannot hold it, so nobody does.
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

fn looking_shows_who_holds_but_never_the_owner_token(world: &World) {
    let session = Session::new();
    world.service.get(&session.path()).assert(200, &json!({"held": false}));
    let granted = world.service.acquire(&session, json!({}));
    let seen = world.service.get(&session.path());
    let (remaining_ms, held_ms) = (seen.number("remaining_ms"), seen.number("held_ms"));
    assert!((1..=31_000).contains(&remaining_ms) && held_ms < 30_000, "{seen:?}");
    seen.assert(
        200,
        &json!({
            "held": true, "id_prospect": session.prospect, "id_device": session.device,
            "remaining_ms": remaining_ms, "held_ms": held_ms,
            "fencing_token": granted.number("fencing_token"), "legacy": false, "waiters": 0,
        }),
    );
    assert!(!seen.json.to_string().contains(&granted.text("owner_token")));
    // Its fencing token says since when it is held.
    let earlier = "CAST(SUBSTRING(timestamp, 27, 16) AS UNSIGNED) - 10000000";
    write(
        &mut world.database.connect(),
        &format!(
            "UPDATE {TABLE} SET timestamp = CONCAT(LEFT(timestamp, 26), {earlier}, SUBSTRING(timestamp, 43)) \
             WHERE {session}"
        ),
    );
    let held_ms = world.service.get(&session.path()).number("held_ms");
    assert!((10_000..40_000).contains(&held_ms), "{held_ms}");
    world.age(&session, 31);
    world.service.get(&session.path()).assert(200, &json!({"held": false}));
}

fn each_outcome_has_its_log_line_and_no_line_has_a_token(world: &World) {
    let service = Service::spawn(
        Command::new(binary())
            .args([
                "serve",
                "--database-url",
                &world.database.url("session_lock"),
                "--api-token",
                "s3cret-t0ken",
            ])
            .env("RUST_LOG", "debug"),
    );
    service.wait_for_line("INFO  ready");
    let refused = service.get("/v1/locks/a/b");
    refused.assert_refused(401, "unauthorized");

    let session = Session::new();
    let ids = format!("id_prospect=\"{}\" id_device=\"{}\"", session.prospect, session.device);
    let first = world.service.hold(&session);
    world.service.wait_for_line(&format!("INFO  Session lock acquired successfully {ids}"));
    world.service.acquire(&session, json!({})).assert_held();
    world.service.wait_for_line(&format!("INFO  Session lock held, duplicate rejected {ids}"));
    world.age(&session, 31);
    let second = world.service.hold(&session);
    world
        .service
        .wait_for_line(&format!("INFO  Session lock taken over from a stale holder {ids}"));
    assert_eq!(world.service.release(&session, &second).status, 200);
    world
        .service
        .wait_for_line(&format!("INFO  Session lock released and cleaned up successfully {ids}"));

    for line in world.service.log().iter().chain(&service.log()) {
        for secret in [&first, &second, "s3cret-t0ken", "root@"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
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

fn the_services_own_clock_changes_nothing(world: &World) {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    assert!(
        std::path::Path::new(LIBRARY).exists(),
        "libfaketime is missing: apt-get install faketime"
    );
    for (offset, session) in [("+9h", Session::new()), ("-400d", Session::new())] {
        let astray = Service::spawn(
            Command::new(binary())
                .args(["serve", "--database-url", &world.database.url("session_lock")])
                .env("LD_PRELOAD", LIBRARY)
                .env("FAKETIME", offset)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        );
        astray.wait_for_line("INFO  ready");
        astray.wait_for_line("clock the database's clock and this machine's are");
        let owner_token = astray.hold(&session);
        world.service.acquire(&session, json!({})).assert_held();
        world.age(&session, 25);
        astray.acquire(&session, json!({})).assert_held();
        world.age(&session, 6);
        astray.acquire(&session, json!({})).assert_granted("takeover");
        assert_eq!(astray.release(&session, &owner_token).status, 409);
    }
}

fn fencing_tokens_rise_when_two_servers_race_for_one_session(world: &World) {
    let other = world.serve(&[]);
    let (session, last) = (Session::new(), AtomicU64::new(0));
    let race = |service: &Service| -> u64 {
        let mut grants = 0;
        for _ in 0..120 {
            let granted = service.acquire(&session, json!({}));
            if granted.status == 200 {
                // Recorded before the release is sent: a lower one afterwards is a later lease.
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
        let racers: Vec<_> = (0..8).map(|n| (services[n % 2], &race)).collect();
        let racers: Vec<_> =
            racers.into_iter().map(|(service, race)| scope.spawn(move || race(service))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert!(grants > 20, "{grants}");
}
