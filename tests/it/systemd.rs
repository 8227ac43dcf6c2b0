//! The unit: its watchdog, and the system calls that it allows.

use std::collections::{BTreeSet, HashMap};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    CLOSE, Service, Session, World, binary, eventually, raw_post, raw_post_head, tests, unix_socket,
};

tests![
    systemd_gets_watchdog_messages_only_while_the_service_answers,
    it_makes_no_system_call_that_the_unit_forbids,
];

const UNIT: &str = include_str!("../../systemd/session-lock.service");

/// The values of a setting in the unit.
pub fn unit_values(name: &str) -> impl Iterator<Item = &'static str> {
    UNIT.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
}

fn systemd_gets_watchdog_messages_only_while_the_service_answers(world: &World) {
    assert_eq!(unit_values("Type").next(), Some("notify"));
    assert!(unit_values("WatchdogSec").next().is_some());
    let url = world.database.url(DATABASE);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut service = Service::spawn(
        Command::new(binary())
            .args(["serve", "--workers", "1", "--database-url", &url])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "600000"),
    );
    let told = || {
        let mut buffer = [0; 1_024];
        let length = systemd.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let wait_for = |line: &str| {
        eventually(|| format!("systemd gets {line}"), || told().filter(|told| told.contains(line)));
    };
    wait_for("READY=1");
    wait_for("STATUS=ready");
    wait_for("WATCHDOG=1");
    // Most clients no longer get an answer, because these threads accept their connections.
    for _ in 0..64 {
        let listener = TcpListener::from(service.listening_socket());
        thread::spawn(move || {
            let accepted: Vec<_> = listener.incoming().map_while(Result::ok).collect();
            drop(accepted);
        });
    }
    thread::sleep(Duration::from_millis(500));
    while told().is_some() {}
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(told(), None, "no watchdog message");
    }
    service.signal("-TERM");
    wait_for("STOPPING=1");
    assert_eq!(service.wait(), Some(0));
}

/// The system calls in one of systemd's sets, and in the sets that it contains.
fn calls_of(set: &str, sets: &HashMap<String, Vec<String>>) -> BTreeSet<String> {
    let members = sets.get(set).unwrap_or_else(|| panic!("systemd knows {set}"));
    members
        .iter()
        .flat_map(|member| {
            if member.starts_with('@') { calls_of(member, sets) } else { [member.clone()].into() }
        })
        .collect()
}

/// The system calls that the unit allows.
fn allowed_calls() -> BTreeSet<String> {
    let printed = Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]).output();
    let printed = printed.expect("systemd-analyze is installed: tests/install systemd").stdout;
    let mut sets = HashMap::<String, Vec<String>>::new();
    let mut set = String::new();
    for line in String::from_utf8(printed).unwrap().lines() {
        let name = line.trim();
        if line.starts_with('@') {
            name.clone_into(&mut set);
        } else if line.starts_with(' ') && !name.starts_with('#') {
            sets.entry(set.clone()).or_default().push(name.to_owned());
        }
    }
    let mut allowed = BTreeSet::new();
    for filter in unit_values("SystemCallFilter") {
        let (sign, names) = filter.strip_prefix('~').map_or(('+', filter), |names| ('-', names));
        for name in names.split(' ') {
            for call in calls_of(name, &sets) {
                if sign == '+' {
                    allowed.insert(call)
                } else {
                    allowed.remove(&call)
                };
            }
        }
    }
    allowed
}

fn it_makes_no_system_call_that_the_unit_forbids(world: &World) {
    let allowed = allowed_calls();
    let (_folder, unix) = unix_socket();
    for listen in ["127.0.0.1:0", &unix] {
        let called = traced_calls(world, listen);
        assert!(called.len() > 20, "{called:?}");
        let forbidden: Vec<_> = called.difference(&allowed).collect();
        assert!(forbidden.is_empty(), "{forbidden:?}");
    }
}

/// The system calls of a service that serves every kind of request, and is stopped.
fn traced_calls(world: &World, listen: &str) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let notify = folder.path().join("notify");
    let _systemd = UnixDatagram::bind(&notify).unwrap();
    // With -D, the child process is the service, and strace its grandchild.
    let mut service = Service::spawn(
        Command::new("strace")
            .args(["-D", "-f", "-qq", "-e", "signal=none", "-o", &trace.display().to_string()])
            .args([&binary(), "serve", "--listen", listen])
            .env("DATABASE_URL", world.database.url(DATABASE))
            .env("NOTIFY_SOCKET", &notify),
    );
    service.wait_until_ready();
    let session = Session::new();
    for (path, fields) in [
        ("/v1/acquire", json!({"owner_token": "12345678901234567890", "message_id": "m"})),
        ("/v1/renew", json!({"owner_token": "12345678901234567890"})),
        ("/v1/acquire", json!({"wait_ms": 50})),
        ("/v1/commit", json!({"owner_token": "12345678901234567890", "message_id": "m"})),
        ("/v1/release", json!({"owner_token": "12345678901234567890"})),
    ] {
        let answer = service.endpoint.ask(raw_post(path, CLOSE, session.with(fields)));
        assert!(answer.contains("200 OK") || answer.contains("held"), "{path}: {answer}");
    }
    service.endpoint.ask(raw_post_head("/v1/acquire", 1_000_000_000_000_u64, ""));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(service.stop(), Some(0));
    let text = eventually(
        || "strace has written all",
        || fs::read_to_string(&trace).ok().filter(|text| text.contains("exit_group(")),
    );
    let called = text.lines().filter_map(|line| {
        let call = line.split_once(' ')?.1.trim_start().split_once('(')?.0;
        call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then(|| call.to_owned())
    });
    called.collect()
}
