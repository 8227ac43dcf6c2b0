//! Memory and processor time.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use serde_json::{Value, json};

use super::keep_alive::read_answer;
use crate::world::{Session, World, raw_post, tests};

tests![
    an_idle_service_is_small,
    two_hundred_and_fifty_six_clients_take_less_than_64_mib,
    an_idle_service_does_next_to_nothing,
];

fn an_idle_service_is_small(world: &World) {
    let service = world.serve(&[]);
    service.hold(&Session::new());
    let resident_kib = service.resident_kib();
    assert!(resident_kib < 32 * 1_024, "{resident_kib} KiB");
}

fn two_hundred_and_fifty_six_clients_take_less_than_64_mib(world: &World) {
    let service = world.serve(&[]);
    let work = || {
        let (mut stream, session) = (service.endpoint.connect(), Session::new());
        let mut post = |path, fields| {
            let request = raw_post(path, "", session.with(fields));
            stream.write_all(request.as_bytes()).unwrap();
            let answer = read_answer(&mut stream).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            serde_json::from_str::<Value>(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
        };
        for _ in 0..20 {
            let granted = post("/v1/acquire", json!({}));
            let fields = json!({"owner_token": granted["owner_token"]});
            post("/v1/release", fields);
        }
        stream
    };
    let streams: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..256).map(|_| scope.spawn(work)).collect();
        let streams = clients.into_iter().map(|client| client.join().unwrap());
        streams.collect()
    });
    let resident = service.resident_kib();
    assert!(resident < 64 * 1_024, "{resident} KiB");
    drop(streams);
}

fn an_idle_service_does_next_to_nothing(world: &World) {
    let service = world.serve(&[]);
    service.hold(&Session::new());
    let sum = |file: &str, pick: fn(&str) -> u64| -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        threads.map(|thread| pick(&read(thread.unwrap().path().join(file)))).sum()
    };
    let wakeups = || {
        sum("status", |text| {
            let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.map_or(0, |number| number.trim().parse().unwrap())
        })
    };
    let ticks = || {
        sum("stat", |text| {
            text.split(' ').skip(13).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
        })
    };
    // By then, the work of the request is done.
    thread::sleep(Duration::from_secs(7));
    let (woken, worked) = (wakeups(), ticks());
    thread::sleep(Duration::from_secs(10));
    let (woken, worked) = (wakeups().saturating_sub(woken), ticks().saturating_sub(worked));
    // The service reads its memory use ten times a second, and does little else. 1 tick is 1 % of a
    // second.
    assert!(woken < 300 && worked <= 3, "{woken} wake-ups, {worked} ticks in 10 s");
}
