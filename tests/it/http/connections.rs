//! Many connections, idle connections, and connections from a reused port.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_timeout};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use session_lock::testing::DATABASE;

use super::keep_alive::{ask_healthz, read_ok};
use crate::systemd::unit_values;
use crate::world::{
    Endpoint, HEALTHZ, Service, Session, SetOnDrop, Stream, World, binary, connect_from,
    eventually, free_port, tests, unix_socket,
};

tests![
    every_connection_of_a_burst_is_answered,
    silent_clients_are_cut_off,
    two_thousand_idle_connections_delay_nobody,
    more_connections_than_descriptors_end_by_themselves,
    a_client_with_the_port_of_another_is_not_taken_for_it,
    a_client_with_the_port_of_a_refused_one_is_served,
];

/// Raises the limit of descriptors for this process and its services to what the system allows.
fn raise_descriptor_limit() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

fn every_connection_of_a_burst_is_answered(world: &World) {
    const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
    raise_descriptor_limit();
    let (_folder, listen) = unix_socket();
    for service in [world.serve(&[]), world.serve(&["--listen", &listen])] {
        for size in [16, 64, 200, 400, 16, 400] {
            let mut took = Vec::new();
            // A busy machine may stall for longer than this, but not each time.
            for _ in 0..5 {
                let began = Instant::now();
                let mut burst: Vec<_> = (0..size).map(|_| service.endpoint.connect()).collect();
                for stream in &mut burst {
                    stream.write_all(HEALTHZ.as_bytes()).unwrap();
                }
                for stream in &mut burst {
                    read_ok(stream).unwrap();
                }
                took.push(began.elapsed());
                // Repeat the requests on the same connections.
                for stream in &mut burst {
                    ask_healthz(stream).unwrap();
                }
                if took.iter().any(|took| *took <= ANSWERED_WITHIN) {
                    break;
                }
            }
            assert!(took.iter().any(|took| *took <= ANSWERED_WITHIN), "{size}: {took:?}");
        }
    }
}

fn silent_clients_are_cut_off(world: &World) {
    let service = world.serve(&[]);
    let listener = service.listening_socket();
    assert_eq!(
        socket_timeout(&listener, Timeout::Recv).unwrap(),
        Some(Duration::from_secs(120)),
        "as docs/operations.md says"
    );
    // Five seconds replace the two minutes.
    let (silence, began) = (Duration::from_secs(5), Instant::now());
    set_socket_timeout(&listener, Timeout::Recv, Some(silence)).unwrap();
    let mut silent =
        ["", "POST /v1/acq", "POST /v1/acquire HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
            .map(|sent| service.endpoint.send(sent));
    let mut idle = service.endpoint.connect();
    ask_healthz(&mut *idle).unwrap();
    let (address, done) = (service.address, Arc::new(AtomicBool::new(false)));
    let is_done = Arc::clone(&done);
    let active = thread::spawn(move || {
        let mut stream: Box<dyn Stream> = Endpoint::Tcp(address).connect();
        while !is_done.load(Ordering::Relaxed) {
            ask_healthz(&mut *stream).unwrap();
            thread::sleep(Duration::from_millis(200));
        }
    });
    for stream in silent.iter_mut().chain([&mut idle]) {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(began.elapsed() >= silence, "not too early");
    }
    thread::sleep(silence / 5);
    done.store(true, Ordering::Relaxed);
    active.join().unwrap();
}

fn two_thousand_idle_connections_delay_nobody(world: &World) {
    raise_descriptor_limit();
    let service = world.serve(&[]);
    let mut idle: Vec<_> = (0..2_000).map(|_| service.endpoint.connect()).collect();
    for stream in &mut idle {
        ask_healthz(&mut **stream).unwrap();
    }
    let resident = service.resident_kib();
    assert!(resident < 128 * 1_024, "{resident} KiB");
    for _ in 0..20 {
        service.hold(&Session::new());
    }
    ask_healthz(&mut *idle[1_999]).unwrap();
}

fn more_connections_than_descriptors_end_by_themselves(world: &World) {
    // At each of these limits, a different call of the service may fail.
    for descriptors in 100..104 {
        let mut service = serve_with_descriptors(world, descriptors, "127.0.0.1:0");
        service.wait_until_ready();
        let clients: Vec<_> = (0..150).map_while(|_| service.endpoint.try_connect().ok()).collect();
        assert_eq!(service.wait(), Some(1), "with {descriptors} descriptors");
        drop(clients);
        service.wait_for_line("LimitNOFILE");
    }
    restarts_serve_again_after_a_crowd(world);
}

/// A service with this limit of descriptors.
fn serve_with_descriptors(world: &World, descriptors: u32, listen: &str) -> Service {
    let (binary, url) = (binary(), world.database.url(DATABASE));
    let serve = format!("exec {binary} serve --listen {listen} --database-url {url}");
    let script = format!("ulimit -n {descriptors}; {serve}");
    Service::spawn(Command::new("sh").args(["-c", &script]))
}

/// If the service is restarted as systemd does, it answers again soon after the crowd has left.
fn restarts_serve_again_after_a_crowd(world: &World) {
    const DESCRIPTORS: u32 = 100;
    const CROWD: usize = 300;
    const SERVED_WITHIN: Duration = Duration::from_secs(2);
    assert_eq!(unit_values("Restart").next(), Some("always"));
    assert_eq!(unit_values("StartLimitIntervalSec").next(), Some("0"), "however often");
    let pause = Duration::from_secs(unit_values("RestartSec").next().unwrap().parse().unwrap());
    let listen = format!("127.0.0.1:{}", free_port());
    let start = || serve_with_descriptors(world, DESCRIPTORS, &listen);
    let first = start();
    let (endpoint, ended) = (first.endpoint.clone(), AtomicBool::new(false));
    let supervise = || {
        let (mut service, mut restarts) = (first, 0);
        while !ended.load(Ordering::Relaxed) {
            if let Some(status) = service.try_wait() {
                assert_eq!(status.code(), Some(1), "a clean exit");
                thread::sleep(pause);
                service = start();
                restarts += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        restarts
    };
    let (restarts, took) = thread::scope(|scope| {
        let _ended = SetOnDrop(&ended);
        let supervisor = scope.spawn(supervise);
        let took = [(); 3].map(|()| {
            // Clients that are cut off come back, for longer than a restart takes.
            let mut crowd = Vec::new();
            let until = Instant::now() + pause * 2;
            while Instant::now() < until {
                if crowd.len() < CROWD {
                    crowd.extend(endpoint.try_connect().ok());
                }
                thread::sleep(Duration::from_millis(1));
            }
            drop(crowd);
            let closed = Instant::now();
            let ask = || ask_healthz(&mut *endpoint.try_connect().ok()?).ok();
            eventually(|| "it answers again", ask);
            closed.elapsed()
        });
        ended.store(true, Ordering::Relaxed);
        (supervisor.join().unwrap(), took)
    });
    assert!(restarts > 0, "the crowd was too small");
    assert!(took.iter().any(|took| *took <= SERVED_WITHIN), "{took:?}");
}

fn a_client_with_the_port_of_another_is_not_taken_for_it(world: &World) {
    /// The service checks its connections every second.
    const CHECKED_WITHIN: Duration = Duration::from_millis(1_200);
    let mut service = world.serve(&[]);
    let from = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut first = connect_from(from, service.address);
    for _ in 0..20 {
        ask_healthz(&mut first).unwrap();
    }
    // The service has checked its connections.
    thread::sleep(CHECKED_WITHIN);
    drop(first);
    // The service checks this connection before its first request.
    let mut second = connect_from(from, service.address);
    thread::sleep(CHECKED_WITHIN);
    ask_healthz(&mut second).expect("it is not cut off");
    assert!(service.try_wait().is_none());
    assert!(service.log().iter().all(|line| !line.contains("cut off")), "{:?}", service.log());
}

fn a_client_with_the_port_of_a_refused_one_is_served(world: &World) {
    let service = world.serve(&[]);
    let from = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for _ in 0..20 {
        let mut refused = connect_from(from, service.address);
        refused.write_all(b"POST /v1/acquire HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        refused.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
        drop(refused);
        // The service closes its side at the same time.
        thread::sleep(Duration::from_millis(150));
        ask_healthz(&mut connect_from(from, service.address)).unwrap();
    }
}
