//! The last ten minutes, which the server keeps for the page.

use serde_json::{Value, json};

use crate::world::{Reply, Service, Session, World, eventually, tests};

tests![
    samples_count_what_happened,
    events_name_takeovers_sweeps_and_forced_releases,
    old_events_are_dropped,
];

/// The sum of all samples.
fn total(history: &Reply, name: &str) -> u64 {
    let Value::Array(values) = &history.json["samples"][name] else {
        panic!("{name}: {history:?}")
    };
    values.iter().map(|value| value.as_u64().unwrap()).sum()
}

fn samples_count_what_happened(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let [held, stale] = [(); 2].map(|()| Session::new());
    let token = service.hold_for(&held, "m1");
    service.acquire(&held, json!({})).assert_held();
    service.commit(&held, &token, "m1");
    service.renew(&held, &token, 60_000);
    service.acquire_for(&held, "m1").assert_duplicate("m1");
    service.renew(&held, "48210000000000000007", 60_000);
    service.hold(&stale);
    schema.age(&stale, 31);
    service.acquire(&stale, json!({})).assert_granted("takeover");
    let history = eventually(
        || "a waiter in a sample",
        || {
            // Its wait in the queue is not a slow answer.
            service.acquire_waiting(&held, 3_000).assert_held();
            let history = service.get("/v1/history");
            (total(&history, "waiting") > 0).then_some(history)
        },
    );
    for (name, expected) in [
        ("granted", 3),
        ("committed", 1),
        ("renewed", 1),
        ("duplicate", 1),
        ("lost", 1),
        ("takeovers", 1),
        ("overruns", 1),
        ("failed", 0),
        ("database_errors", 0),
    ] {
        assert_eq!(total(&history, name), expected, "{name}: {history:?}");
    }
    assert!(total(&history, "refused") >= 1, "{history:?}");
    let Value::Array(slowest) = &history.json["samples"]["slowest_ms"] else {
        panic!("{history:?}")
    };
    let slowest = slowest.iter().map(|ms| ms.as_u64().unwrap()).max().unwrap();
    assert!((1..3_000).contains(&slowest), "{history:?}");
    assert!(history.number("uptime_ms") >= 5_000, "{history:?}");
    service.release(&held, &token);
}

fn events_name_takeovers_sweeps_and_forced_releases(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let [swept, stale, old, forced] = [(); 4].map(|()| Session::new());
    service.hold(&swept);
    schema.age(&swept, 30 + 6 * 60);
    // A server sweeps when it starts, and every minute.
    drop(service);
    let service = Service::start(&schema.url(), &[]);
    service.wait_for_line("swept 1 rows of crashed holders");
    let token = service.hold(&stale);
    schema.age(&stale, 31);
    service.acquire(&stale, json!({})).assert_granted("takeover");
    schema.store(&old, "'2020-01-01 00:00:00'");
    service.acquire(&old, json!({})).assert_granted("takeover");
    service.hold(&forced);
    service.force(&forced, json!({}));
    // The session was not held, so nothing was released.
    service.force(&forced, json!({}));
    let history = service.get("/v1/history");
    assert!(!history.json.to_string().contains(&token), "{history:?}");
    let Value::Array(events) = &history.json["events"] else { panic!("{history:?}") };
    let expected = [
        ("forced", false, &forced),
        ("takeover", true, &old),
        ("takeover", false, &stale),
        ("swept", false, &swept),
    ];
    assert_eq!(events.len(), expected.len(), "{history:?}");
    for (event, (word, legacy, session)) in events.iter().zip(expected) {
        assert_eq!(event["event"], word, "{history:?}");
        assert_eq!(event["legacy"], legacy, "{history:?}");
        assert_eq!(event["id_device"], *session.device, "{history:?}");
        assert_eq!(event["id_prospect"], *session.prospect, "{history:?}");
        assert!(event["ago_ms"].as_u64().unwrap() < 60_000, "{history:?}");
    }
}

fn old_events_are_dropped(world: &World) {
    // A sweep of other tests' rows would add events.
    let (_schema, service) = world.own_service(&[]);
    let sessions: Vec<_> = (0..102).map(|_| Session::new()).collect();
    for session in &sessions {
        service.hold(session);
        assert_eq!(service.force(session, json!({})).status, 200);
    }
    let Value::Array(events) = &service.get("/v1/history").json["events"] else { panic!() };
    let prospects: Vec<_> =
        events.iter().map(|event| event["id_prospect"].as_str().unwrap()).collect();
    let expected: Vec<_> = sessions[2..].iter().rev().map(|session| &session.prospect).collect();
    assert_eq!(prospects, expected);
}
