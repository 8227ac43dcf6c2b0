//! `session-lock run`: a command under a lease, stopped before the lease ends.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::world::{Printed, Session, TABLE, World, binary, eventually, free_port, signal, tests};

tests![
    a_command_runs_under_a_lease_and_its_status_is_ours,
    a_held_session_is_75_and_waited_for_if_asked,
    no_server_is_69_and_no_command_is_127,
    a_lease_is_renewed_as_long_as_the_command_runs,
    a_lost_lease_stops_the_command_and_all_that_it_started,
    a_server_that_is_gone_stops_the_command_before_the_expiry,
    a_command_does_not_begin_without_a_lease,
    signals_are_passed_on,
];

/// `session-lock run` of a shell script in its own folder.
pub struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    pub fn start(url: &str, session: &Session, options: &[&str], script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary());
        let Session { device, prospect } = session;
        command.args(["run", "--url", url, "--device", device, "--prospect", prospect]);
        command.args(options).args(["--", "sh", "-c", script]).current_dir(folder.path());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn wait_for_file(&self, name: &str) -> String {
        eventually(
            || format!("{name} is written"),
            || fs::read_to_string(self.file(name)).ok().filter(|text| text.ends_with('\n')),
        )
    }

    pub fn finish(self) -> Printed {
        self.child.wait_with_output().unwrap().into()
    }
}

/// The letter of a process's state in /proc: `T` is stopped, `Z` a zombie.
pub fn process_state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn is_alive(pid: &str) -> bool {
    process_state(pid).is_some_and(|state| state != 'Z')
}

fn a_command_runs_under_a_lease_and_its_status_is_ours(world: &World) {
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let session = Session::new();
        let script = format!(
            "echo $SESSION_LOCK_FENCING_TOKEN >token; until [ -e go ]; do sleep 0.02; done; {script}"
        );
        let running = Running::start(&world.service.http_url(), &session, &[], &script);
        let fencing_token = running.wait_for_file("token");
        let read = world.service.get(&session.path());
        assert_eq!(read.number("fencing_token").to_string(), fencing_token.trim());
        fs::write(running.file("go"), "").unwrap();
        let printed = running.finish();
        assert_eq!(printed.status, Some(status), "{printed:?}");
        assert_eq!(world.stored(&session), None, "the lease is released");
    }
}

fn a_held_session_is_75_and_waited_for_if_asked(world: &World) {
    let session = Session::new();
    let held = world.service.acquire(&session, json!({"ttl_ms": 600_000}));
    let owner_token = held.text("owner_token");
    let printed = Running::start(&world.service.http_url(), &session, &[], "touch ran").finish();
    assert_eq!(printed.status, Some(75), "{printed:?}");
    assert!(printed.err.contains("held by another worker"), "{printed:?}");
    let printed =
        Running::start(&world.service.http_url(), &session, &["--wait", "300ms"], "touch ran")
            .finish();
    assert_eq!(printed.status, Some(75), "{printed:?}");
    let waiting = Running::start(&world.service.http_url(), &session, &["--wait", "1m"], "exit 3");
    world.service.wait_for_waiters(&session, 1);
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
    assert_eq!(waiting.finish().status, Some(3));
}

fn no_server_is_69_and_no_command_is_127(world: &World) {
    let session = Session::new();
    let closed = format!("http://127.0.0.1:{}", free_port());
    let printed = Running::start(&closed, &session, &[], "touch ran").finish();
    assert_eq!(printed.status, Some(69), "{printed:?}");
    let binary = &binary();
    let ids = ["--device", &session.device, "--prospect", &session.prospect];
    let run = |command: &[&str]| {
        let mut run = Command::new(binary);
        run.args(["run", "--url", &world.service.http_url()])
            .args(ids)
            .args(command)
            .stderr(Stdio::null());
        run.status().unwrap().code()
    };
    assert_eq!(run(&["--", "/no/such/command"]), Some(127));
    assert_eq!(run(&["--", "/etc/passwd"]), Some(126));
    assert_eq!(run(&[]), Some(2));
    assert_eq!(run(&["--ttl", "fast", "--", "true"]), Some(2));
    assert_eq!(run(&["--ttl", "5ms", "--", "true"]), Some(2));
    assert_eq!(world.stored(&session), None);
}

fn a_lease_is_renewed_as_long_as_the_command_runs(world: &World) {
    let session = Session::new();
    // The renewal at a third of the ttl may be 3 s late: a busy machine sometimes stalls for this
    // long.
    let running =
        Running::start(&world.service.http_url(), &session, &["--ttl", "6s"], "sleep 10; exit 4");
    let mut reads = 0;
    eventually(|| "it is held", || world.stored(&session));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(9) {
        world.service.acquire(&session, json!({})).assert_held();
        reads += 1;
    }
    assert!(reads > 1);
    assert_eq!(running.finish().status, Some(4));
    assert_eq!(world.stored(&session), None);
}

fn a_lost_lease_stops_the_command_and_all_that_it_started(world: &World) {
    let session = Session::new();
    // The command and its child ignore SIGTERM.
    let script = "trap '' TERM; sh -c 'echo $$ >child; sleep 60' & echo $$ >parent; wait; sleep 60";
    let running = Running::start(&world.service.http_url(), &session, &["--ttl", "6s"], script);
    let (parent, child) = (running.wait_for_file("parent"), running.wait_for_file("child"));
    world.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
    let printed = running.finish();
    assert_eq!(printed.status, Some(137), "{printed:?}");
    assert!(printed.err.contains("the lease is lost"), "{printed:?}");
    assert!(!is_alive(&parent));
    eventually(|| "the child is gone", || (!is_alive(&child)).then_some(()));
}

fn a_server_that_is_gone_stops_the_command_before_the_expiry(world: &World) {
    let service = world.serve(&[]);
    let session = Session::new();
    let script = "trap '' TERM; echo $$ >pid; while :; do sleep 0.1; done";
    let running = Running::start(&service.http_url(), &session, &["--ttl", "12s"], script);
    let pid = running.wait_for_file("pid");
    drop(service);
    eventually(|| "the command is gone", || (!is_alive(&pid)).then_some(()));
    let left_us: i64 = world
        .rows(format!("SELECT 30000000 - TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)) FROM {TABLE} WHERE {session}"))
        .pop()
        .unwrap();
    assert!(left_us > 0, "gone {left_us} us before the expiry");
    let printed = running.finish();
    assert_eq!(printed.status, Some(137), "{printed:?}");
}

/// A server that answers each path with this body, after this delay. Returns its URL.
fn fake_server(answer: fn(&str) -> (Duration, &'static str)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            while !request.ends_with('}') {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(char::from(byte[0]));
            }
            let (delay, body) = answer(request.split(' ').nth(1).unwrap());
            thread::sleep(delay);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

fn a_command_does_not_begin_without_a_lease(_: &World) {
    const GRANT: &str =
        r#"{"granted":true,"owner_token":"1","fencing_token":1,"remaining_ms":2000,"how":"new"}"#;
    // Another program at this address.
    let other_program = fake_server(|_| (Duration::ZERO, r#"{"status":"fine"}"#));
    // The lease may be over when the grant is answered, and nobody says whether it is.
    let late_grant = fake_server(|path| match path {
        "/v1/acquire" => (Duration::from_secs(1), GRANT),
        _ => (Duration::ZERO, r#"{"status":"fine"}"#),
    });
    let late_renewals = fake_server(|path| match path {
        "/v1/acquire" => (Duration::from_secs(1), GRANT),
        "/v1/renew" => (Duration::from_secs(3), r#"{"renewed":true,"remaining_ms":2000}"#),
        _ => (Duration::ZERO, r#"{"released":true}"#),
    });
    for (server, reason) in [
        (other_program, "is not session-lock"),
        (late_grant, "is not session-lock"),
        (late_renewals, "answers too slowly"),
    ] {
        let running = Running::start(&server, &Session::new(), &["--ttl", "2s"], "touch ran");
        let Running { child, folder } = running;
        let printed = Printed::from(child.wait_with_output().unwrap());
        assert_eq!(printed.status, Some(69), "{printed:?}");
        assert!(printed.err.contains(reason), "{printed:?}");
        assert!(!folder.path().join("ran").exists());
    }
}

fn signals_are_passed_on(world: &World) {
    let session = Session::new();
    let script = "trap 'exit 9' TERM; echo ready >ready; while :; do sleep 0.05; done";
    let running = Running::start(&world.service.http_url(), &session, &[], script);
    running.wait_for_file("ready");
    signal(running.child.id(), "-TERM");
    assert_eq!(running.finish().status, Some(9));
    assert_eq!(world.stored(&session), None);
}
