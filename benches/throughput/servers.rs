//! The servers that are compared, each started for one database.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use mysql::Opts;
use mysql::prelude::Queryable;
use session_lock::testing::PrivateDatabase;

use crate::TABLE;
use crate::http::Http;
use crate::measure::setting;

/// Leases that are held, and clients that wait, during the whole measurement: `BENCH_LEASES` and
/// `BENCH_WAITERS` show the cost of growth.
const LEASES: u64 = 0;
const WAITERS: u64 = 0;

/// Longer than any of those clients waits.
const WAITER_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Servers {
    pub database: PrivateDatabase,
    /// The addresses of session-lock and of the other servers.
    pub ours: String,
    pub literal: String,
    /// `None` if etcd is not installed.
    pub etcd: Option<String>,
    pub redis: Option<String>,
    children: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Servers {
    pub fn start(program: &Path) -> Self {
        let options =
            ["--skip-networking", "--max-connections=600", "--innodb-flush-log-at-trx-commit=1"];
        let database = PrivateDatabase::start(program, &options).unwrap_or_else(|e| panic!("{e}"));
        let binary = std::env::var("BENCH_BINARY")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_session-lock").to_owned());
        let url = database.url();
        let ours = |command: &str| {
            let mut ours = Command::new(&binary);
            ours.arg(command).env("DATABASE_URL", &url).env("SESSION_LOCK_LISTEN", "127.0.0.1:0");
            ours
        };
        let migrated = ours("migrate").stdout(Stdio::null()).status().unwrap();
        assert!(migrated.success());
        let mut servers = Self {
            children: Vec::new(),
            ours: String::new(),
            literal: String::new(),
            etcd: None,
            redis: None,
            folder: tempfile::tempdir().unwrap(),
            database,
        };
        servers.ours = servers.spawn(&mut ours("serve"));
        let mut literal = Command::new(std::env::current_exe().unwrap());
        servers.literal = servers.spawn(literal.args(["literal", &url]));
        servers.grow();
        servers.start_etcd();
        servers.start_redis();
        servers
    }

    /// Starts a server and waits until its log says that it is ready. Returns its address.
    fn spawn(&mut self, command: &mut Command) -> String {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = String::new();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                rest.clone_into(&mut address);
            }
            if line.ends_with("ready") {
                break;
            }
        }
        thread::spawn(move || lines.count());
        self.children.push(child);
        address
    }

    /// Adds the leases and the waiters.
    fn grow(&self) {
        let mut conn = mysql::Conn::new(Opts::from_url(&self.database.url()).unwrap()).unwrap();
        let leases: Vec<_> = (0..setting("BENCH_LEASES", LEASES)).collect();
        for some in leases.chunks(10_000) {
            let rows = some.iter().map(|number| {
                format!(
                    "('held{number}', 'bot{}', '2099-01-01 00:00:00.0000001760432400123456{:020}')",
                    number % 100,
                    number
                )
            });
            let rows: Vec<_> = rows.collect();
            let insert = format!("INSERT INTO {TABLE} (id_prospect, id_device, timestamp) VALUES");
            conn.query_drop(format!("{insert} {}", rows.join(","))).unwrap();
        }
        let body = r#"{"id_device":"bot4","id_prospect":"1","ttl_ms":900000,"wait_ms":25000}"#;
        for _ in 0..setting("BENCH_WAITERS", WAITERS) {
            let mut http = Http::connect(&self.ours);
            let stream = http.stream.get_ref();
            stream.set_read_timeout(Some(WAITER_TIMEOUT)).unwrap();
            // These clients end with the benchmark.
            thread::spawn(move || {
                loop {
                    let _ = http.ask("POST", "/v1/acquire", body);
                }
            });
        }
    }

    fn start_etcd(&mut self) {
        let (client, peer) = ("http://127.0.0.1:23790", "http://127.0.0.1:23800");
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(self.folder.path().join("etcd"));
        etcd.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
        etcd.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
        etcd.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"]);
        if let Ok(child) = etcd.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            self.children.push(child);
            wait_for("127.0.0.1:23790");
            self.etcd = Some("127.0.0.1:23790".to_owned());
        }
    }

    fn start_redis(&mut self) {
        let mut redis = Command::new("redis-server");
        redis.args(["--port", "16390", "--appendonly", "yes", "--appendfsync", "always"]);
        redis.args(["--save", "", "--dir"]).arg(self.folder.path());
        if let Ok(child) = redis.stdout(Stdio::null()).spawn() {
            self.children.push(child);
            wait_for("127.0.0.1:16390");
            self.redis = Some("127.0.0.1:16390".to_owned());
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for(address: &str) {
    while TcpStream::connect(address).is_err() {
        thread::sleep(Duration::from_millis(50));
    }
}
