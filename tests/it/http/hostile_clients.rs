//! Every attack on the front door that we could think of, through each way to it: TCP, a Unix
//! socket, and a real nginx with the site that `systemd/` carries. After each, and while its
//! connections are still open, others are served.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_linger, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::json;

use crate::world::{Door, Session, Stream, World, eventually, free_port, tests};

tests![
    hostile_clients_hold_up_nobody,
    clients_that_send_without_end_and_never_read_hold_up_nobody,
    a_forged_length_of_a_client_that_was_cut_off_ends_nobody,
    who_has_the_address_of_a_client_that_was_cut_off_holds_up_nobody,
    hostile_clients_of_a_unix_socket_hold_up_nobody,
    hostile_clients_of_nginx_hold_up_nobody,
    nginx_speaks_tls_and_the_words_of_the_service,
];

/// While whatever goes on, a request is answered within this.
const SERVED_WITHIN: Duration = Duration::from_millis(500);

/// The machine may stall for longer than that, but not each time.
const TRIES: usize = 40;

/// Sent by a client whose head never ends, unless it is cut off before.
const ENDLESS_BYTES: usize = 64 * 1024 * 1024;

fn hostile_clients_hold_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    attack(&service.door);
    assert_eq!(endless_heads(&service.door), 3, "all are cut off");
    let resident = service.resident_kib();
    assert!(resident < 256 * 1_024, "{resident} KiB");
    service.wait_for_line("sent a head without end");
}

fn clients_that_send_without_end_and_never_read_hold_up_nobody(world: &World) {
    let mut service = world.serve(&["--workers", "2"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let list = "/v1/locks?limit=1000";
        for target in ["/healthz", list, "/healthz", "/nowhere", "/healthz", "/readyz"] {
            let (door, done) = (&service.door, &done);
            scope.spawn(move || {
                let requests = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(500);
                while !done.load(Ordering::Relaxed) {
                    // Whoever is cut off comes back.
                    let mut stream = door.connect();
                    stream.patience(SERVED_WITHIN, SERVED_WITHIN);
                    while !done.load(Ordering::Relaxed)
                        && stream.write_all(requests.as_bytes()).is_ok()
                    {}
                }
            });
        }
        // The clients end, whatever becomes of this.
        let served = std::panic::catch_unwind(|| {
            for _ in 0..8 {
                assert_served(&service.door);
                std::thread::sleep(SERVED_WITHIN);
            }
        });
        done.store(true, Ordering::Relaxed);
        served.expect("others are served");
    });
    let resident = service.resident_kib();
    assert!(resident < 256 * 1_024, "{resident} KiB");
    assert_served(&service.door);
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
}

fn a_forged_length_of_a_client_that_was_cut_off_ends_nobody(world: &World) {
    let mut service = world.serve(&[]);
    let session = Session::new();
    service.post("/v1/acquire", session.with(json!({})));
    let wait = session.with(json!({"wait_ms": 300})).to_string();
    let look = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(30);
    let _open: Vec<_> = (0..5)
        .map(|_| {
            let wait = head(&wait.len().to_string(), "") + &wait;
            service.door.send(wait + &look + &head("10000000000000", "") + &look)
        })
        .collect();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        assert_served(&service.door);
    }
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
}

fn who_has_the_address_of_a_client_that_was_cut_off_holds_up_nobody(world: &World) {
    let service = world.serve(&["--workers", "2"]);
    let session = Session::new();
    service.post("/v1/acquire", session.with(json!({})));
    let wait = session.with(json!({"wait_ms": 2000})).to_string();
    let look = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(30);
    let too_much = head(&wait.len().to_string(), "") + &wait + &look;
    let from = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut first = connect_from(from, service.address);
    first.write_all(too_much.as_bytes()).unwrap();
    let cut_off = first.read(&mut [0; 1]);
    assert!(!cut_off.is_ok_and(|bytes| bytes > 0), "it is cut off");
    drop(first);

    let mut second = connect_from(from, service.address);
    second.write_all(head("5000", "").as_bytes()).unwrap();
    assert_served(&service.door);
    assert_eq!(second.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    drop(second);

    // Who sends a whole request loses it, and is not left to wait for its answer.
    let mut third = connect_from(from, service.address);
    let _ = third.write_all(look.as_bytes());
    let ended = third.read_to_end(&mut Vec::new());
    let waits = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
    assert!(!ended.is_err_and(waits), "it notices");
}

/// A connection whose other end sees it come from this address, even if one came from there before.
fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    // Not for the children of other tests, in which it would live on.
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &from).unwrap();
    connect(&socket, &to).unwrap();
    // Its end leaves nothing behind that would keep the address.
    set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn hostile_clients_of_a_unix_socket_hold_up_nobody(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("lock.sock").display());
    let service = world.serve(&["--workers", "2", "--listen", &listen]);
    attack(&service.door);
    let _deaf = service.door.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(600));
    service.wait_for_line("did not read their answers");
}

fn hostile_clients_of_nginx_hold_up_nobody(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("lock.sock").display());
    let _service = world.serve(&["--workers", "2", "--listen", &listen]);
    let nginx = Nginx::start(folder.path(), &Speaks::PlainHttp);
    attack(&nginx.door);
    endless_heads(&nginx.door);
}

fn attack(door: &Door) {
    assert_served(door);
    let mut open = Vec::new();
    for digits in 1..=30 {
        let length = "1".to_owned() + &"0".repeat(digits);
        for body in ["", "{\"id_device\":"] {
            open.push(door.send(head(&length, "") + body));
        }
    }
    for length in ["-1", "+5", "1e3", "0x10", "5 5", "", "18446744073709551615"] {
        open.push(door.send(head(length, "") + "{}"));
    }
    assert_served(door);

    open.extend(silent(door));
    assert_served(door);

    for _ in 0..20 {
        let mut trickle = door.send("POST /v1/acq");
        for byte in b"uire HTTP/1.1\r\nContent-Length: 100\r\n\r\n{\"id" {
            let _ = trickle.write_all(&[*byte]);
        }
        open.push(trickle);
    }
    assert_served(door);

    let look = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    // On a Unix socket nothing tells whose they are: a flood is answered, but holds up others.
    let (pipelined, floods) = match door {
        Door::Tcp(_) => (5_000, 4),
        Door::Unix(_) => (600, 0),
    };
    open.push(door.send(look.repeat(pipelined)));
    assert_served(door);
    for _ in 0..floods {
        let mut deaf = door.connect();
        deaf.patience(SERVED_WITHIN, SERVED_WITHIN);
        for _ in 0..50 {
            if deaf.write_all(look.repeat(1_000).as_bytes()).is_err() {
                break;
            }
        }
        open.push(deaf);
    }
    assert_served(door);

    for _ in 0..20 {
        // TLS where none is spoken, and HTTP/2 without asking.
        open.push(door.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03junk"));
        open.push(door.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00"));
        open.push(door.send("GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n"));
    }
    assert_served(door);

    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        open.push(door.send(junk(&mut random)));
    }
    assert_served(door);
    drop(open);
    assert_served(door);
}

/// Clients that send nothing after the head, or half of it, or nothing at all.
fn silent(door: &Door) -> impl Iterator<Item = Box<dyn Stream>> {
    (0..150).map(|number| {
        let request = match number % 6 {
            0 => head("5000", ""),
            1 => head("500", ""),
            2 => head("500", "") + "{\"id_device\":",
            3 => head("500", "Expect: 100-continue\r\n"),
            4 => "POST /v1/acquire HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            _ => "POST /v1/acquire HTTP/1.1\r\nTransfer-Enc".to_owned(),
        };
        door.send(request)
    })
}

fn head(length: &str, more: &str) -> String {
    format!("POST /v1/acquire HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n")
}

/// A good request, spoilt here and there, or nothing but noise.
fn junk(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = (head("51", "")
        + "{\"id_device\":\"a\",\"id_prospect\":\"b\",\"ttl_ms\":30000}")
        .into_bytes();
    for _ in 0..random.usize(0..8) {
        let at = random.usize(..bytes.len());
        match random.u8(..4) {
            0 => bytes[at] = random.u8(..),
            1 => bytes.insert(at, random.u8(..)),
            2 => bytes.truncate(at.max(1)),
            _ => bytes.extend_from_within(at..),
        }
    }
    if random.bool() {
        bytes.fill_with(|| random.u8(..));
    }
    bytes
}

/// How many of them were cut off.
fn endless_heads(door: &Door) -> usize {
    let mut cut_off = 0;
    let line = "a".repeat(64 * 1_024);
    let many = "a: b\r\n".repeat(11_000);
    let mut open = Vec::new();
    for chunk in [&line, &many, &line] {
        let mut stream = door.send("GET /healthz HTTP/1.1\r\n");
        stream.patience(SERVED_WITHIN, SERVED_WITHIN);
        let mut left = ENDLESS_BYTES;
        while left > 0 && stream.write_all(chunk.as_bytes()).is_ok() {
            left = left.saturating_sub(chunk.len());
        }
        cut_off += usize::from(left > 0);
        open.push(stream);
        assert_served(door);
    }
    cut_off
}

#[track_caller]
fn assert_served(door: &Door) {
    let mut took = Vec::new();
    for _ in 0..TRIES {
        let began = Instant::now();
        let body = Session::new().with(json!({})).to_string();
        let answer = door.ask(head(&body.len().to_string(), "Connection: close\r\n") + &body);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?} after {:?}", began.elapsed());
        took.push(began.elapsed());
        if began.elapsed() <= SERVED_WITHIN {
            return;
        }
    }
    panic!("{took:?}");
}

/// What a test's nginx listens for.
enum Speaks {
    PlainHttp,
    Tls,
}

/// A real nginx with the site of `systemd/`, in front of `lock.sock` in the same folder.
struct Nginx {
    child: Child,
    door: Door,
}

impl Nginx {
    fn start(folder: &Path, speaks: &Speaks) -> Self {
        let port = free_port();
        let name = |file: &str| folder.join(file).display().to_string();
        let site = include_str!("../../../systemd/nginx-session-lock.conf")
            .replace("/run/session-lock/http.sock", &name("lock.sock"))
            .replace(
                "listen 443 ssl",
                &match speaks {
                    Speaks::PlainHttp => format!("listen 127.0.0.1:{port}"),
                    Speaks::Tls => format!("listen 127.0.0.1:{port} ssl"),
                },
            )
            .replace("/etc/ssl/lock.example.com.pem", &name("cert.pem"))
            .replace("/etc/ssl/lock.example.com.key", &name("cert.key"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args([
                "-subj",
                "/CN=lock.example.com",
                "-addext",
                "subjectAltName=DNS:lock.example.com",
            ])
            .args(["-out", &name("cert.pem"), "-keyout", &name("cert.key")])
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl is installed: tests/install nginx").success());
        // Its temporary folders are in this one; as root, its workers stay root, to reach the socket.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {};\n", name(what)))
            .concat();
        let conf = format!(
            "{user} daemon off; pid {}; error_log {} info; events {{ worker_connections 4096; }}\n\
             http {{ access_log off; {temporary} {site} }}",
            name("nginx.pid"),
            name("error.log"),
        );
        fs::write(folder.join("nginx.conf"), conf).unwrap();
        let child = Command::new("nginx")
            .args(["-p", &name(""), "-c", &name("nginx.conf")])
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed: tests/install nginx");
        let door = Door::Tcp(([127, 0, 0, 1], port).into());
        eventually(
            || fs::read_to_string(name("error.log")).unwrap_or_default(),
            || door.try_connect().ok(),
        );
        Self { child, door }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked, it ends its workers too; killed, it would leave them behind.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn nginx_speaks_tls_and_the_words_of_the_service(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("lock.sock").display());
    let mut service = world.serve(&["--listen", &listen, "--api-token", "t0ken"]);
    let nginx = Nginx::start(folder.path(), &Speaks::Tls);
    let Door::Tcp(address) = nginx.door else { unreachable!("it listens on a port") };
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["-sS", "-i", "--cacert", &folder.path().join("cert.pem").display().to_string()])
            .args(["--resolve", &format!("lock.example.com:{}:127.0.0.1", address.port())])
            .args(["-H", "Authorization: Bearer t0ken"])
            .args(arguments)
            .arg(format!("https://lock.example.com:{}/v1/acquire", address.port()))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let session = Session::new();
    let body = session.with(json!({})).to_string();
    let granted = curl(&["-d", &body]);
    assert!(
        granted.starts_with("HTTP/1.1 200") && granted.contains("\"granted\":true"),
        "{granted}"
    );
    let held = curl(&["-d", &body]);
    assert!(held.starts_with("HTTP/1.1 409") && held.contains("Retry-After"), "{held}");
    let chunked = curl(&["-d", &body, "-H", "Transfer-Encoding: chunked"]);
    assert!(chunked.starts_with("HTTP/1.1 409"), "{chunked}");
    let large = curl(&["-d", &"x".repeat(1_025)]);
    assert!(large.starts_with("HTTP/1.1 413") && large.contains("too_large"), "{large}");
    service.signal("-TERM");
    assert_eq!(service.wait(), Some(0));
    let gone = curl(&["-d", &body]);
    assert!(
        gone.starts_with("HTTP/1.1 503")
            && gone.contains("Retry-After")
            && gone.contains("unavailable"),
        "{gone}"
    );
}
