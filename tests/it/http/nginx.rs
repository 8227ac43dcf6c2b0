//! A real nginx with the site in `systemd/`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::json;

use super::attacks::{attack, endless_heads};
use crate::world::{Endpoint, Session, World, eventually, free_port, openssl, tests, unix_socket};

tests![
    hostile_clients_of_nginx_hold_up_nobody,
    nginx_serves_tls_and_passes_on_the_answers_of_the_service,
];

/// The address of nginx.
enum Protocol {
    PlainHttp,
    Tls,
}

/// A real nginx with the site of `systemd/`, in front of `lock.sock` in the same folder.
struct Nginx {
    child: Child,
    endpoint: Endpoint,
}

impl Nginx {
    fn start(folder: &Path, protocol: &Protocol) -> Self {
        let port = free_port();
        let name = |file: &str| folder.join(file).display().to_string();
        let site = include_str!("../../../systemd/nginx-session-lock.conf")
            .replace("/run/session-lock/http.sock", &name("lock.sock"))
            .replace(
                "listen 443 ssl",
                &match protocol {
                    Protocol::PlainHttp => format!("listen 127.0.0.1:{port}"),
                    Protocol::Tls => format!("listen 127.0.0.1:{port} ssl"),
                },
            )
            .replace("/etc/ssl/lock.example.com.pem", &name("cert.pem"))
            .replace("/etc/ssl/lock.example.com.key", &name("cert.key"));
        openssl(
            folder,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=lock.example.com \
             -addext subjectAltName=DNS:lock.example.com -out cert.pem -keyout cert.key",
        );
        // If nginx is started as root, its workers must stay root to reach the socket.
        let user = if geteuid().is_root() { "user root;" } else { "" };
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
        let endpoint = Endpoint::Tcp(([127, 0, 0, 1], port).into());
        eventually(
            || fs::read_to_string(name("error.log")).unwrap_or_default(),
            || endpoint.try_connect().ok(),
        );
        Self { child, endpoint }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM also ends its workers, which SIGKILL would leave behind.
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.child.wait();
    }
}

fn hostile_clients_of_nginx_hold_up_nobody(world: &World) {
    let (folder, listen) = unix_socket();
    let _service = world.serve(&["--workers", "2", "--listen", &listen]);
    let nginx = Nginx::start(folder.path(), &Protocol::PlainHttp);
    attack(&nginx.endpoint);
    endless_heads(&nginx.endpoint);
}

fn nginx_serves_tls_and_passes_on_the_answers_of_the_service(world: &World) {
    let (folder, listen) = unix_socket();
    let mut service = world.serve(&["--listen", &listen, "--api-token", "t0ken"]);
    let nginx = Nginx::start(folder.path(), &Protocol::Tls);
    let Endpoint::Tcp(address) = nginx.endpoint else { unreachable!("it listens on a port") };
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
    assert_eq!(service.stop(), Some(0));
    let gone = curl(&["-d", &body]);
    assert!(
        gone.starts_with("HTTP/1.1 503")
            && gone.contains("Retry-After")
            && gone.contains("unavailable"),
        "{gone}"
    );
}
