//! The front door in good and bad times: crowds, silence, systemd, stopping and starting.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getrlimit, pidfd_getfd, pidfd_open,
    setrlimit,
};
use serde_json::{Value, json};

use crate::world::{
    DatabaseServer, Done, Door, Service, Session, Stream, World, binary, eventually, free_port,
    migrate, run, tests,
};

tests![
    every_connection_of_a_burst_is_answered,
    silent_clients_are_cut_off,
    two_thousand_idle_connections_are_in_nobodys_way,
    two_hundred_and_fifty_six_clients_take_less_than_64_mib,
    more_connections_than_descriptors_end_by_themselves,
    a_client_with_the_port_of_another_is_not_taken_for_it,
    a_frozen_database_is_not_a_frozen_service,
    an_idle_service_does_next_to_nothing,
    a_stopping_service_closes_its_door_first,
    a_stopping_service_ends_although_clients_go_on,
    kill_9_loses_no_granted_lease_and_the_next_start_takes_a_moment,
    systemd_is_told_that_the_service_answers_and_not_that_it_lives,
    a_unix_socket_serves_whom_its_mode_lets_in,
    a_file_that_is_no_socket_is_not_replaced,
    commands_reach_a_server_on_a_unix_socket,
    too_many_answers_behind_a_wait_on_a_unix_socket_end_in_a_clean_exit,
    it_makes_no_system_call_that_the_unit_forbids,
];

const UNIT: &str = include_str!("../../../systemd/session-lock.service");

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

/// A value of the unit.
fn unit(name: &str) -> impl Iterator<Item = &'static str> {
    UNIT.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Asks on a kept-alive connection, and reads the answer.
fn ask(stream: &mut (impl Read + Write + ?Sized)) -> std::io::Result<()> {
    stream.write_all(HEALTHZ)?;
    read_ok(stream)
}

fn read_ok(stream: &mut (impl Read + ?Sized)) -> std::io::Result<()> {
    let answer = read_answer(stream)?;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

fn read_answer(stream: &mut (impl Read + ?Sized)) -> std::io::Result<String> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1_024];
    while !answer.ends_with(b"}\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend(&buffer[..length]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Lets this process, and the services that it starts, have as many descriptors as they may.
fn many_descriptors() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

fn every_connection_of_a_burst_is_answered(world: &World) {
    const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
    many_descriptors();
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("lock.sock").display());
    for service in [world.serve(&[]), world.serve(&["--listen", &listen])] {
        for size in [16, 64, 200, 400, 16, 400] {
            let mut took = Vec::new();
            // The machine may stall for longer than that, but not each time.
            for _ in 0..5 {
                let began = Instant::now();
                let mut burst: Vec<_> = (0..size).map(|_| service.door.connect()).collect();
                for stream in &mut burst {
                    stream.write_all(HEALTHZ).unwrap();
                }
                for stream in &mut burst {
                    read_ok(stream).unwrap();
                }
                took.push(began.elapsed());
                // Again on the same connections.
                for stream in &mut burst {
                    ask(stream).unwrap();
                }
                if took.iter().any(|took| *took <= ANSWERED_WITHIN) {
                    break;
                }
            }
            assert!(took.iter().any(|took| *took <= ANSWERED_WITHIN), "{size}: {took:?}");
        }
    }
}

/// The service's own listening socket.
fn listener(service: &Service) -> OwnedFd {
    let pid = Pid::from_raw(i32::try_from(service.pid()).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let entries = fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap();
    entries
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
        .find(|socket| {
            let name = rustix::net::getsockname(socket).ok();
            let name = name.and_then(|name| std::net::SocketAddr::try_from(name).ok());
            name == Some(service.address) && rustix::net::getpeername(socket).is_err()
        })
        .expect("it listens")
}

fn silent_clients_are_cut_off(world: &World) {
    let service = world.serve(&[]);
    let listener = listener(&service);
    assert_eq!(
        socket_timeout(&listener, Timeout::Recv).unwrap(),
        Some(Duration::from_secs(120)),
        "as the README says"
    );
    // Two minutes pass in five seconds.
    let (silence, began) = (Duration::from_secs(5), Instant::now());
    set_socket_timeout(&listener, Timeout::Recv, Some(silence)).unwrap();
    let mut silent =
        ["", "POST /v1/acq", "POST /v1/acquire HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
            .map(|sent| service.door.send(sent));
    let mut idle = service.door.connect();
    ask(&mut *idle).unwrap();
    let (address, done) = (service.address, Arc::new(AtomicBool::new(false)));
    let is_done = Arc::clone(&done);
    let lively = thread::spawn(move || {
        let mut stream: Box<dyn Stream> = Door::Tcp(address).connect();
        while !is_done.load(Ordering::Relaxed) {
            ask(&mut *stream).unwrap();
            thread::sleep(Duration::from_millis(200));
        }
    });
    for stream in silent.iter_mut().chain([&mut idle]) {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(began.elapsed() >= silence, "not before its time");
    }
    thread::sleep(silence / 5);
    done.store(true, Ordering::Relaxed);
    lively.join().unwrap();
}

fn two_thousand_idle_connections_are_in_nobodys_way(world: &World) {
    many_descriptors();
    let service = world.serve(&[]);
    let mut idle: Vec<_> = (0..2_000).map(|_| service.door.connect()).collect();
    for stream in &mut idle {
        ask(&mut **stream).unwrap();
    }
    let resident = service.resident_kib();
    assert!(resident < 128 * 1_024, "{resident} KiB");
    for _ in 0..20 {
        service.hold(&Session::new());
    }
    ask(&mut *idle[1_999]).unwrap();
}

fn two_hundred_and_fifty_six_clients_take_less_than_64_mib(world: &World) {
    let service = world.serve(&[]);
    let work = || {
        let (mut stream, session) = (service.door.connect(), Session::new());
        let mut post = |path, fields| {
            let body = session.with(fields).to_string();
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}", body.len());
            write!(stream, "{head}\r\n\r\n{body}").unwrap();
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
    let crowd: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..256).map(|_| scope.spawn(work)).collect();
        let streams = clients.into_iter().map(|client| client.join().unwrap());
        streams.collect()
    });
    let resident = service.resident_kib();
    assert!(resident < 64 * 1_024, "{resident} KiB");
    drop(crowd);
}

fn more_connections_than_descriptors_end_by_themselves(world: &World) {
    const SERVED_WITHIN: Duration = Duration::from_secs(2);
    assert_eq!(unit("Restart").next(), Some("always"));
    assert_eq!(unit("StartLimitIntervalSec").next(), Some("0"), "however often");
    let pause = Duration::from_secs(unit("RestartSec").next().unwrap().parse().unwrap());
    // One less or more is another place for it to fail.
    for descriptors in 100..104 {
        let mut service = Service::spawn(Command::new("sh").args([
            "-c",
            &format!(
                "ulimit -n {descriptors}; exec {} serve --database-url {}",
                &binary(),
                world.database.url("session_lock")
            ),
        ]));
        service.wait_for_line("INFO  ready");
        let crowd: Vec<_> = (0..150).map_while(|_| service.door.try_connect().ok()).collect();
        assert_eq!(service.wait(), Some(1), "with {descriptors} descriptors");
        drop(crowd);
        service.wait_for_line("LimitNOFILE");
    }
    let (binary, url) = (&binary(), world.database.url("session_lock"));
    let listen = format!("127.0.0.1:{}", free_port());
    let script =
        format!("ulimit -n 100; exec {binary} serve --listen {listen} --database-url {url}");
    let ended = Arc::new(AtomicBool::new(false));
    let is_ended = Arc::clone(&ended);
    let first = Service::spawn(Command::new("sh").args(["-c", &script]));
    let door = first.door.clone();
    let supervisor = thread::spawn(move || {
        let (mut service, mut restarts) = (first, 0);
        while !is_ended.load(Ordering::Relaxed) {
            if let Some(status) = service.try_wait() {
                assert_eq!(status.code(), Some(1), "a clean exit");
                thread::sleep(pause);
                service = Service::spawn(Command::new("sh").args(["-c", &script]));
                restarts += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        restarts
    });
    let mut took = Vec::new();
    for _ in 0..3 {
        // Whoever is cut off comes back, for longer than a restart takes.
        let mut crowd = Vec::new();
        let until = Instant::now() + pause * 2;
        while Instant::now() < until {
            if crowd.len() < 300 {
                crowd.extend(door.try_connect().ok());
            }
            thread::sleep(Duration::from_millis(1));
        }
        drop(crowd);
        let closed = Instant::now();
        eventually(|| "it answers again", || ask(&mut *door.try_connect().ok()?).ok());
        took.push(closed.elapsed());
    }
    ended.store(true, Ordering::Relaxed);
    assert!(supervisor.join().unwrap() > 0, "the crowd was too small");
    assert!(took.iter().any(|took| *took <= SERVED_WITHIN), "{took:?}");
}

fn an_idle_service_does_next_to_nothing(world: &World) {
    let service = world.serve(&[]);
    service.hold(&Session::new());
    let sum = |file: &str, pick: fn(&str) -> u64| -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap();
        let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
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
    // What the request left behind is over after this.
    thread::sleep(Duration::from_secs(7));
    let (woken, worked) = (wakeups(), ticks());
    thread::sleep(Duration::from_secs(10));
    let (woken, worked) = (wakeups().saturating_sub(woken), ticks().saturating_sub(worked));
    // Ten looks at its memory and a few more a second; 1 tick is 1 % of a second.
    assert!(woken < 300 && worked <= 3, "{woken} wake-ups, {worked} ticks in 10 s");
}

fn a_stopping_service_closes_its_door_first(world: &World) {
    let mut service = world.serve(&["--workers", "2"]);
    let session = Session::new();
    world.store(&session, "garbage");
    let mut neighbour = world.lock_row(&session);
    let (door, body) = (service.door.clone(), session.with(json!({})).to_string());
    let request = format!(
        "POST /v1/acquire HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let asked = thread::spawn(move || door.ask(request));
    world.wait_for_write(&session);
    service.signal("-TERM");
    eventually(|| "nobody is let in", || service.door.try_connect().err());
    assert!(service.try_wait().is_none(), "what was accepted is not answered yet");
    neighbour.query_drop("ROLLBACK").unwrap();
    let answered = asked.join().unwrap();
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
    assert_eq!(service.wait(), Some(0));
}

fn a_stopping_service_ends_although_clients_go_on(world: &World) {
    let mut service = world.serve(&[]);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = service.door.connect();
            thread::spawn(move || {
                while stream.write_all(HEALTHZ).is_ok()
                    && let Ok(answer) = read_answer(&mut *stream)
                {
                    // What arrives as it stops may be told so.
                    let is_over =
                        answer.starts_with("HTTP/1.1 503 ") && answer.contains("is stopping");
                    assert!(is_over || answer.starts_with("HTTP/1.1 200 "), "{answer}");
                }
            })
        })
        .collect();
    service.hold(&Session::new());
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
    for client in clients {
        client.join().unwrap();
    }
}

fn kill_9_loses_no_granted_lease_and_the_next_start_takes_a_moment(world: &World) {
    const READY_WITHIN: Duration = Duration::from_secs(1);
    let mut started_in = Vec::new();
    for _ in 0..3 {
        let service = world.serve(&[]);
        let granted = Arc::new(Mutex::new(Vec::new()));
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (granted, door) = (Arc::clone(&granted), service.door.clone());
                thread::spawn(move || {
                    loop {
                        let session = Session::new();
                        let body = session.with(json!({"ttl_ms": 600_000})).to_string();
                        let Ok(mut stream) = door.try_connect() else { return };
                        let request = format!(
                            "POST /v1/acquire HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        );
                        let mut answer = String::new();
                        if stream.write_all(request.as_bytes()).is_err()
                            || stream.read_to_string(&mut answer).is_err()
                        {
                            return;
                        }
                        if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("}\n") {
                            granted.lock().unwrap().push(session);
                        }
                    }
                })
            })
            .collect();
        eventually(|| "many leases", || (granted.lock().unwrap().len() > 200).then_some(()));
        service.signal("-KILL");
        for worker in workers {
            worker.join().unwrap();
        }
        let began = Instant::now();
        let service = world.serve(&[]);
        started_in.push(began.elapsed());
        for session in granted.lock().unwrap().iter() {
            assert_eq!(service.get(&session.path()).json["held"], json!(true), "{session}");
        }
    }
    assert!(started_in.iter().any(|took| *took <= READY_WITHIN), "{started_in:?}");
}

fn systemd_is_told_that_the_service_answers_and_not_that_it_lives(world: &World) {
    assert_eq!(unit("Type").next(), Some("notify"));
    assert!(unit("WatchdogSec").next().is_some());
    let url = world.database.url("session_lock");
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
        eventually(
            || format!("systemd is told {line}"),
            || told().filter(|told| told.contains(line)),
        );
    };
    wait_for("READY=1");
    wait_for("STATUS=ready");
    wait_for("WATCHDOG=1");
    // Whoever connects gets no answer: others take the connections, in turn with the service.
    for _ in 0..64 {
        let thief = std::net::TcpListener::from(listener(&service));
        thread::spawn(move || {
            let stolen: Vec<_> = thief.incoming().map_while(Result::ok).collect();
            drop(stolen);
        });
    }
    thread::sleep(Duration::from_millis(500));
    while told().is_some() {}
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(told(), None, "the watchdog starves");
    }
    service.signal("-TERM");
    wait_for("STOPPING=1");
    assert_eq!(service.wait(), Some(0));
}

fn a_unix_socket_serves_whom_its_mode_lets_in(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock.sock");
    let listen = format!("unix:{}", path.display());
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let mut service = world.serve(&["--listen", &listen]);
    assert_eq!(mode(), 0o660);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
    ask(&mut *service.door.connect()).unwrap();
    // A second one does not take the place of one that lives.
    let url = world.database.url("session_lock");
    let second = run(&["serve", "--listen", &listen, "--database-url", &url]);
    assert_eq!(second.status, Some(1), "{second:?}");
    assert!(second.err.contains("another session-lock"), "{second:?}");
    // But of one that died.
    service.signal("-KILL");
    service.wait();
    assert!(path.exists());
    let mut service = world.serve(&["--listen", &listen, "--socket-mode", "0606"]);
    assert_eq!(mode(), 0o606);
    ask(&mut *service.door.connect()).unwrap();
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
    assert!(!path.exists(), "it tidies up");
}

fn a_file_that_is_no_socket_is_not_replaced(world: &World) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "precious").unwrap();
    let listen = format!("unix:{}", file.path().display());
    let refused =
        run(&["serve", "--listen", &listen, "--database-url", &world.database.url("session_lock")]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.err.contains("no socket"), "{refused:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

fn commands_reach_a_server_on_a_unix_socket(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("lock.sock").display());
    let _service = world.serve(&["--listen", &listen]);
    let Session { device, prospect } = Session::new();
    let ids = ["--url", &listen, "--device", &device, "--prospect", &prospect];
    let listing = ["--", "sh", "-c", "\"$0\" list --url \"$1\" --device \"$2\" --json"];
    let binary = binary();
    let own = [binary.as_str(), &listen, &device];
    let ran = run(&[&["run"], &ids[..], &listing[..], &own[..]].concat());
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.out.contains(&prospect), "{ran:?}");
    let released = run(&[&["release", "--force"], &ids[..]].concat());
    assert_eq!(released.status, Some(1), "{released:?}");
    assert!(released.err.contains("not held"), "{released:?}");
    let nobody = run(&["list", "--url", "unix:/nowhere/lock.sock"]);
    assert_eq!(nobody.status, Some(69), "{nobody:?}");
    assert!(nobody.err.contains("unix:/nowhere/lock.sock"), "{nobody:?}");
}

fn too_many_answers_behind_a_wait_on_a_unix_socket_end_in_a_clean_exit(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("lock.sock").display());
    let mut service = world.serve(&["--listen", &listen]);
    let session = Session::new();
    let post = |fields| {
        let body = session.with(fields).to_string();
        format!("POST /v1/acquire HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let mut held = service.door.send(post(json!({"ttl_ms": 600_000})));
    read_ok(&mut *held).unwrap();
    let _waits = service
        .door
        .send(post(json!({"wait_ms": 25_000})) + &"GET /healthz HTTP/1.1\r\n\r\n".repeat(600));
    assert_eq!(service.wait(), Some(1));
    service.wait_for_line("a fresh start frees");
}

/// The calls of a set of systemd's, and of the sets in it.
fn calls_of(set: &str, sets: &HashMap<String, Vec<String>>) -> BTreeSet<String> {
    let members = sets.get(set).unwrap_or_else(|| panic!("systemd knows {set}"));
    members
        .iter()
        .flat_map(|member| {
            if member.starts_with('@') { calls_of(member, sets) } else { [member.clone()].into() }
        })
        .collect()
}

fn it_makes_no_system_call_that_the_unit_forbids(world: &World) {
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
    for filter in unit("SystemCallFilter") {
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

    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let notify = folder.path().join("notify");
    let _systemd = UnixDatagram::bind(&notify).unwrap();
    let listen =
        ["127.0.0.1:0".to_owned(), format!("unix:{}", folder.path().join("lock.sock").display())];
    for listen in listen {
        // With -D the process that is started is the service, and strace its grandchild.
        let mut service = Service::spawn(
            Command::new("strace")
                .args(["-D", "-f", "-qq", "-e", "signal=none", "-o", &trace.display().to_string()])
                .args([&binary(), "serve", "--listen", &listen])
                .env("DATABASE_URL", world.database.url("session_lock"))
                .env("NOTIFY_SOCKET", &notify),
        );
        service.wait_for_line("INFO  ready");
        let session = Session::new();
        for (path, fields) in [
            ("acquire", json!({"owner_token": "12345678901234567890", "message_id": "m"})),
            ("renew", json!({"owner_token": "12345678901234567890"})),
            ("acquire", json!({"wait_ms": 50})),
            ("commit", json!({"owner_token": "12345678901234567890", "message_id": "m"})),
            ("release", json!({"owner_token": "12345678901234567890"})),
        ] {
            let body = session.with(fields).to_string();
            let answer = service.door.ask(format!(
                "POST /v1/{path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            assert!(answer.contains("200 OK") || answer.contains("held"), "{path}: {answer}");
        }
        service.door.ask("POST /v1/acquire HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n");
        thread::sleep(Duration::from_secs(1));
        service.signal("-TERM");
        assert_eq!(service.wait(), Some(0));
        let text = eventually(
            || "strace has written all",
            || fs::read_to_string(&trace).ok().filter(|text| text.contains("exit_group(")),
        );
        let called = text.lines().filter_map(|line| {
            let call = line.split_once(' ')?.1.trim_start().split_once('(')?.0;
            call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then(|| call.to_owned())
        });
        let called: BTreeSet<_> = called.collect();
        assert!(called.len() > 20, "{called:?}");
        let forbidden: Vec<_> = called.difference(&allowed).collect();
        assert!(forbidden.is_empty(), "{forbidden:?}");
    }
}

fn a_client_with_the_port_of_another_is_not_taken_for_it(world: &World) {
    let mut service = world.serve(&[]);
    let port = free_port();
    // Closed by a reset, a port is free at once.
    let connect = || {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        rustix::net::bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        rustix::net::connect(&socket, &service.address).unwrap();
        TcpStream::from(socket)
    };
    let mut first = connect();
    for _ in 0..20 {
        ask(&mut first).unwrap();
    }
    // The doorkeeper has looked.
    thread::sleep(Duration::from_millis(1_200));
    drop(first);
    // It is looked at before it asks.
    let mut second = connect();
    thread::sleep(Duration::from_millis(1_200));
    ask(&mut second).expect("it is not cut off");
    assert!(service.try_wait().is_none());
    assert!(service.log().iter().all(|line| !line.contains("cut off")), "{:?}", service.log());
}

fn a_frozen_database_is_not_a_frozen_service(world: &World) {
    let server = DatabaseServer::start(world.engine, &[]);
    let url = server.url("session_lock");
    migrate(&url);
    let service = Service::start(&url, &["--workers", "2"]);
    server.freeze();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = Done(&done);
        // More than the workers can take at a time.
        for _ in 0..400 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    service.acquire(&Session::new(), json!({}));
                }
            });
        }
        thread::sleep(Duration::from_secs(2));
        for _ in 0..5 {
            let began = Instant::now();
            ask(&mut service.door.connect()).unwrap();
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
            thread::sleep(Duration::from_millis(500));
        }
        server.thaw();
    });
}
