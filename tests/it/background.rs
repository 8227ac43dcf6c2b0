//! Stale rows and old records of messages are deleted.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{MESSAGE_TABLE, Service, Session, TABLE, World, eventually, tests};

tests![
    rows_of_crashed_holders_are_swept_and_no_others,
    a_row_that_cannot_be_swept_is_named,
    old_records_are_forgotten_and_young_ones_kept,
];

fn rows_of_crashed_holders_are_swept_and_no_others(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let [abandoned, recent, live, foreign] = [(); 4].map(|()| Session::new());
    // A sweep reads a thousand rows at a time: the others are on its second page.
    schema.fill(1_000);
    for session in [&abandoned, &recent, &live] {
        service.hold(session);
    }
    schema.age(&abandoned, 30 + 6 * 60);
    schema.age(&recent, 30 + 4 * 60);
    schema.store(&foreign, "'2020-01-01 00:00:00'");
    drop(service);
    // A server sweeps when it starts, and every minute.
    let began = Instant::now();
    // If a busy machine delays the sweep, the next server sweeps.
    let service = eventually(
        || "a sweep",
        || {
            let service = Service::start(&schema.url(), &[]);
            let until = Instant::now() + Duration::from_secs(5);
            let swept = |line: &String| line.contains("swept 1 rows of crashed holders");
            while Instant::now() < until {
                if service.log().iter().any(swept) {
                    return Some(service);
                }
                thread::sleep(Duration::from_millis(20));
            }
            None
        },
    );
    let left = format!("SELECT id_prospect FROM {TABLE} WHERE id_device <> 'bot'");
    let left: HashSet<String> = schema.rows(&left).into_iter().collect();
    let expected = HashSet::from([recent.prospect.clone(), live.prospect, foreign.prospect]);
    assert_eq!(left, expected, "{:?}", began.elapsed());
    service.acquire(&recent, json!({})).assert_granted("takeover");
}

fn a_row_that_cannot_be_swept_is_named(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let session = Session::new();
    service.hold(&session);
    schema.sql(&format!(
        "CREATE TABLE notes (lease INT, CONSTRAINT of_lease FOREIGN KEY (lease) REFERENCES {TABLE} (id_sessionX))"
    ));
    schema.sql(&format!("INSERT INTO notes SELECT id_sessionX FROM {TABLE}"));
    schema.age(&session, 30 + 6 * 60);
    drop(service);
    let line = Service::start(&schema.url(), &[])
        .wait_for_line("WARN  a crashed holder's row cannot be deleted");
    assert!(line.contains("of_lease"), "{line}");
}

fn old_records_are_forgotten_and_young_ones_kept(world: &World) {
    let schema = world.own_table();
    let insert = |first: u64, count: u64, age_ms: u64| {
        let committed_us = format!("UNIX_TIMESTAMP(NOW(6)) * 1000000 - {age_ms} * 1000");
        let row = |n| format!("('p{n}', 'd', 'm{n}', '0', {committed_us}, NULL)");
        let rows: Vec<_> = (first..first + count).map(row).collect();
        schema.sql(&format!(
            "INSERT INTO {MESSAGE_TABLE} (id_prospect, id_device, message_id, owner_token, committed_us, result) VALUES {}",
            rows.join(",")
        ));
    };
    // More than one batch of old records, and some that are still kept.
    insert(0, 250, 3_601_000);
    insert(1_000, 20, 3_500_000);
    let service = Service::start(&schema.url(), &["--message-retention-ms", "3600000"]);
    service.wait_for_line("deleted 250 old records");
    let left: Vec<String> = schema.rows(&format!("SELECT message_id FROM {MESSAGE_TABLE}"));
    assert_eq!(left.len(), 20);
    let young = Session { device: "d".to_owned(), prospect: "p1000".to_owned() };
    service.acquire_for(&young, "m1000").assert_duplicate("m1000");
}
