//! How many conversations a second are taken and given back, by whom: `make bench` prints a table.
//! What was tried and what it gave is in `benches/README.md`.
//!
//! Every row goes through the same loop: so many clients, each with a connection that it keeps, take
//! a conversation and give it back, over and over. The rows take turns, several rounds of them, and
//! the medians count.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Opts, OptsBuilder};
use r2d2_mysql::MySqlConnectionManager;
use session_lock::testing::PrivateDatabase;
use session_lock::testing::{
    Acquire, Id, OwnerToken, Release, Session, TTL_MAX_MS, TokenOrigin, Ttl,
};
use session_lock::testing::{FirstPacket, Opened, Operation, Store};

const TABLE: &str = "ai_whatsapp_session_nodepath";
const CLIENTS: [usize; 3] = [1, 64, 256];

/// `BENCH_ROUNDS`, `BENCH_SECONDS`, `BENCH_ONLY` (names of rows, with `;` between them) and
/// `BENCH_CLIENTS` (one number) change these.
const ROUNDS: u64 = 3;
const SECONDS: u64 = 3;

/// Leases that are held all the time, and clients that wait all the time: `BENCH_LEASES` and
/// `BENCH_WAITERS`, to see what growth costs.
const LEASES: u64 = 0;
const WAITERS: u64 = 0;

/// Before a row is measured.
const WARM_UP: Duration = Duration::from_millis(700);

/// Operations in one transaction of `raw`, and connections that run them.
const RAW_BATCH: usize = 64;
const RAW_CONNECTIONS: u32 = 2;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, mode, url, ..] = &arguments[..]
        && mode == "literal"
    {
        return literal(url);
    }
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let mysqld = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/mysql/mysqld"));
    for (name, program) in [("MariaDB", PathBuf::from("/usr/sbin/mariadbd")), ("MySQL", mysqld)] {
        if std::env::var("BENCH_DATABASE").is_ok_and(|wanted| wanted != name) {
            continue;
        }
        let bench = Bench::start(&program);
        println!("\n{name}\n");
        bench.print(&only);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Something that takes and gives back one conversation after the other.
type Client = Box<dyn FnMut(u64) -> Result<(), String> + Send>;

/// One row of the table: makes its clients.
type Row<'a> = Box<dyn Fn(usize) -> Client + Sync + 'a>;

struct Measured {
    pairs_per_s: u64,
    p50_us: u64,
    p99_us: u64,
    errors: u64,
}

struct Bench {
    database: PrivateDatabase,
    servers: Vec<Child>,
    ours: String,
    literal: String,
    etcd: Option<String>,
    redis: Option<String>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn start(program: &Path) -> Self {
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
        let mut bench = Self {
            servers: Vec::new(),
            ours: String::new(),
            literal: String::new(),
            etcd: None,
            redis: None,
            folder: tempfile::tempdir().unwrap(),
            database,
        };
        bench.ours = bench.spawn(&mut ours("serve"), "ready");
        let mut literal = Command::new(std::env::current_exe().unwrap());
        bench.literal = bench.spawn(literal.args(["literal", &url]), "ready");
        bench.grow();
        bench.start_etcd();
        bench.start_redis();
        bench
    }

    /// Starts a server, and waits until it says that it is ready; where it listens.
    fn spawn(&mut self, command: &mut Command, ready: &str) -> String {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = String::new();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                rest.clone_into(&mut address);
            }
            if line.ends_with(ready) {
                break;
            }
        }
        thread::spawn(move || lines.count());
        self.servers.push(child);
        address
    }

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
            let patience = Duration::from_secs(60);
            let stream = http.stream.get_ref();
            stream.set_read_timeout(Some(patience)).unwrap();
            // They end with the benchmark.
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
            self.servers.push(child);
            wait_for("127.0.0.1:23790");
            self.etcd = Some("127.0.0.1:23790".to_owned());
        }
    }

    fn start_redis(&mut self) {
        let mut redis = Command::new("redis-server");
        redis.args(["--port", "16390", "--appendonly", "yes", "--appendfsync", "always"]);
        redis.args(["--save", "", "--dir"]).arg(self.folder.path());
        if let Ok(child) = redis.stdout(Stdio::null()).spawn() {
            self.servers.push(child);
            wait_for("127.0.0.1:16390");
            self.redis = Some("127.0.0.1:16390".to_owned());
        }
    }

    fn rows(&self) -> Vec<(&'static str, Row<'_>)> {
        let url = self.database.url();
        let mut rows: Vec<(&str, Row)> = vec![
            ("ours", Box::new(|_| http_pairs(&self.ours))),
            ("ours, 8 sessions", Box::new(|_| contended(&self.ours))),
            ("ours, refused", Box::new(|_| refused(&self.ours))),
            ("no-op route", Box::new(|_| noops(&self.ours))),
            ("literal", Box::new(|_| http_pairs(&self.literal))),
            ("old program", Box::new(move |_| old_program(&url))),
            ("GET_LOCK", Box::new(|_| get_lock(&self.database.url()))),
        ];
        if let Some(address) = &self.etcd {
            rows.push(("etcd", Box::new(move |_| etcd(address))));
        }
        if let Some(address) = &self.redis {
            rows.push(("Redis, appendfsync always", Box::new(move |_| redis(address))));
        }
        rows
    }

    fn print(&self, only: &str) {
        let mut table: BTreeMap<(usize, usize), Vec<Measured>> = BTreeMap::new();
        let rows = self.rows();
        let is_wanted =
            |name: &str| only.is_empty() || only.split(';').any(|wanted| wanted == name);
        let clients = match setting("BENCH_CLIENTS", 0) {
            0 => CLIENTS.to_vec(),
            one => vec![usize::try_from(one).expect("BENCH_CLIENTS is too large")],
        };
        for _ in 0..setting("BENCH_ROUNDS", ROUNDS) {
            for (at, (name, row)) in rows.iter().enumerate() {
                for &clients in clients.iter().filter(|_| is_wanted(name)) {
                    table.entry((at, clients)).or_default().push(measure(row, clients));
                }
            }
            if is_wanted("raw") {
                let raw = raw(&self.database.url());
                table.entry((rows.len(), 0)).or_default().push(raw);
            }
        }
        println!("| | clients | pairs/s | p50 | p99 | errors |\n|---|---:|---:|---:|---:|---:|");
        for ((at, clients), measured) in table {
            let name = rows.get(at).map_or("raw", |(name, _)| name);
            let median = |value: fn(&Measured) -> u64| {
                let mut values: Vec<_> = measured.iter().map(value).collect();
                values.sort_unstable();
                values[values.len() / 2]
            };
            let ms = |us: u64| format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10);
            println!(
                "| {name} | {clients} | {} | {} | {} | {} |",
                median(|row| row.pairs_per_s),
                ms(median(|row| row.p50_us)),
                ms(median(|row| row.p99_us)),
                measured.iter().map(|row| row.errors).sum::<u64>(),
            );
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn wait_for(address: &str) {
    while TcpStream::connect(address).is_err() {
        thread::sleep(Duration::from_millis(50));
    }
}

/// The loop that every row goes through.
fn measure(row: &Row, clients: usize) -> Measured {
    let (go, over) = (Barrier::new(clients + 1), AtomicBool::new(false));
    let counting = AtomicBool::new(false);
    let (mut times, mut errors, mut took) = (Vec::new(), 0, Duration::ZERO);
    thread::scope(|scope| {
        let running: Vec<_> = (0..clients)
            .map(|number| {
                let (go, over, counting) = (&go, &over, &counting);
                scope.spawn(move || {
                    let mut client = row(number);
                    let (mut times_us, mut errors) = (Vec::new(), 0_u64);
                    go.wait();
                    while !over.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        let done = client(next());
                        if counting.load(Ordering::Relaxed) {
                            match done {
                                Ok(()) => times_us.push(us_since(began)),
                                Err(_) => errors += 1,
                            }
                        }
                    }
                    (times_us, errors)
                })
            })
            .collect();
        go.wait();
        thread::sleep(WARM_UP);
        let began = Instant::now();
        counting.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_secs(setting("BENCH_SECONDS", SECONDS)));
        over.store(true, Ordering::Relaxed);
        took = began.elapsed();
        for client in running {
            let (client_times, client_errors) = client.join().unwrap();
            times.extend(client_times);
            errors += client_errors;
        }
    });
    summary(times, errors, took)
}

fn us_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap()
}

fn summary(mut times_us: Vec<u64>, errors: u64, took: Duration) -> Measured {
    times_us.sort_unstable();
    let at = |percent: usize| times_us.get(times_us.len() * percent / 100).copied().unwrap_or(0);
    Measured {
        pairs_per_s: u64::try_from(times_us.len() as u128 * 1_000 / took.as_millis()).unwrap(),
        p50_us: at(50),
        p99_us: at(99),
        errors,
    }
}

fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Customers of one bot, in no order.
fn prospect(number: u64) -> String {
    format!("60{:010}", number.wrapping_mul(2_654_435_761) % 10_000_000_000)
}

/// The least that an HTTP client can do.
struct Http {
    stream: BufReader<TcpStream>,
    request: String,
    line: String,
    body: Vec<u8>,
}

impl Http {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self {
            stream: BufReader::new(stream),
            request: String::new(),
            line: String::new(),
            body: Vec::new(),
        }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<&str, String> {
        self.request.clear();
        let _ = write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let failed = |error: std::io::Error| error.to_string();
        self.stream.get_mut().write_all(self.request.as_bytes()).map_err(failed)?;
        let (mut status, mut length) = (String::new(), 0);
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).map_err(failed)?;
            let line = self.line.trim_end();
            if status.is_empty() {
                line.clone_into(&mut status);
            }
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.parse().unwrap();
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).map_err(failed)?;
        if status.contains(" 200") {
            Ok(std::str::from_utf8(&self.body).unwrap())
        } else {
            Err(status)
        }
    }
}

fn http_pairs(address: &str) -> Client {
    let mut http = Http::connect(address);
    Box::new(move |number| {
        let session = format!(r#""id_device":"bot1","id_prospect":"{}""#, prospect(number));
        let granted = http.ask("POST", "/v1/acquire", &format!("{{{session}}}"))?;
        let (_, token) = granted.split_once(r#""owner_token":""#).ok_or("no token")?;
        let body = format!(r#"{{{session},"owner_token":"{}"}}"#, &token[..20]);
        http.ask("POST", "/v1/release", &body).map(drop)
    })
}

/// Two requests that are refused: for one of a few sessions that are held all the time.
fn refused(address: &str) -> Client {
    const SESSIONS: u64 = 8;
    let mut http = Http::connect(address);
    Box::new(move |number| {
        let prospect = number % SESSIONS;
        let body = format!(r#"{{"id_device":"bot3","id_prospect":"{prospect}","ttl_ms":900000}}"#);
        for _ in 0..2 {
            match http.ask("POST", "/v1/acquire", &body) {
                Err(status) if !status.contains(" 409") => return Err(status),
                // The first of all is granted, and held to the end.
                _ => {}
            }
        }
        Ok(())
    })
}

/// Two requests for one of a few sessions, most of which are held: refused, or granted and released.
fn contended(address: &str) -> Client {
    const SESSIONS: u64 = 8;
    let mut http = Http::connect(address);
    Box::new(move |number| {
        let session = format!(r#""id_device":"bot2","id_prospect":"{}""#, number % SESSIONS);
        let acquire = format!("{{{session}}}");
        let mut answers = 0;
        while answers < 2 {
            let granted = match http.ask("POST", "/v1/acquire", &acquire) {
                Ok(granted) => granted,
                Err(status) if status.contains(" 409") => {
                    answers += 1;
                    continue;
                }
                Err(status) => return Err(status),
            };
            let (_, token) = granted.split_once(r#""owner_token":""#).ok_or("no token")?;
            let body = format!(r#"{{{session},"owner_token":"{}"}}"#, &token[..20]);
            http.ask("POST", "/v1/release", &body)?;
            answers += 2;
        }
        Ok(())
    })
}

fn noops(address: &str) -> Client {
    let mut http = Http::connect(address);
    Box::new(move |_| {
        http.ask("GET", "/healthz", "")?;
        http.ask("GET", "/healthz", "").map(drop)
    })
}

/// What the old bot did itself: look, upsert, and at the end delete.
fn old_program(url: &str) -> Client {
    let mut conn = mysql::Conn::new(Opts::from_url(url).unwrap()).unwrap();
    conn.query_drop("SET time_zone = '+00:00'").unwrap();
    Box::new(move |number| {
        let ids = (prospect(number), "bot1");
        let both = "WHERE id_prospect = ? AND id_device = ?";
        let look = format!("SELECT TIMESTAMPDIFF(SECOND, timestamp, NOW()) FROM {TABLE} {both}");
        let failed = |error: mysql::Error| error.to_string();
        let _: Option<Option<i64>> = conn.exec_first(&look, &ids).map_err(failed)?;
        let upsert = format!(
            "INSERT INTO {TABLE} (id_prospect, id_device, timestamp) VALUES (?, ?, NOW()) \
             ON DUPLICATE KEY UPDATE timestamp = VALUES(timestamp)"
        );
        conn.exec_drop(&upsert, &ids).map_err(failed)?;
        conn.exec_drop(format!("DELETE FROM {TABLE} {both}"), &ids).map_err(failed)
    })
}

/// The database's own locks, which end with their connection: nothing is written.
fn get_lock(url: &str) -> Client {
    let mut conn = mysql::Conn::new(Opts::from_url(url).unwrap()).unwrap();
    Box::new(move |number| {
        let name = (format!("bot1/{}", prospect(number)),);
        for statement in ["SELECT GET_LOCK(?, 0)", "SELECT RELEASE_LOCK(?)"] {
            let done: Option<u8> =
                conn.exec_first(statement, &name).map_err(|error| error.to_string())?;
            if done != Some(1) {
                return Err(format!("{statement}: {done:?}"));
            }
        }
        Ok(())
    })
}

/// Our own statements without HTTP, as many together as help.
fn raw(url: &str) -> Measured {
    let store = Store::new(&Opts::from_url(url).unwrap(), TABLE, None, RAW_CONNECTIONS);
    assert!(matches!(store.open(), Opened::Ready(_)));
    let id = |text: &str| Id::new(text).unwrap();
    let until = Instant::now() + Duration::from_secs(setting("BENCH_SECONDS", SECONDS));
    let (mut times, mut errors) = (Vec::new(), 0);
    let began = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = (0..RAW_CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut times_us, mut errors) = (Vec::new(), 0_u64);
                    while Instant::now() < until {
                        let began = Instant::now();
                        let ttl = Ttl::new(30_000, TTL_MAX_MS).unwrap();
                        let leases: Vec<_> = (0..RAW_BATCH)
                            .map(|_| {
                                let (id_prospect, id_device) = (id(&prospect(next())), id("bot1"));
                                (Session { id_device, id_prospect }, OwnerToken::draw())
                            })
                            .collect();
                        let acquires: Vec<_> = leases
                            .iter()
                            .cloned()
                            .map(|(session, owner_token)| Acquire {
                                session,
                                owner_token,
                                origin: TokenOrigin::Ours,
                                ttl,
                                message_id: None,
                            })
                            .map(|acquire| Operation::Acquire(acquire, FirstPacket::Write))
                            .collect();
                        let releases: Vec<_> = leases
                            .into_iter()
                            .map(|(session, owner_token)| Release {
                                session,
                                owner_token,
                                message: None,
                            })
                            .map(Operation::Release)
                            .collect();
                        for operations in [acquires, releases] {
                            errors +=
                                store.run(&operations).iter().filter(|a| a.is_err()).count() as u64;
                        }
                        times_us.extend([us_since(began); RAW_BATCH]);
                    }
                    (times_us, errors)
                })
            })
            .collect();
        for connection in running {
            let (its_times, its_errors) = connection.join().unwrap();
            times.extend(its_times);
            errors += its_errors;
        }
    });
    summary(times, errors, began.elapsed())
}

/// A transaction of etcd that creates the key if it is not there, through its JSON gateway.
fn etcd(address: &str) -> Client {
    let mut http = Http::connect(address);
    Box::new(move |number| {
        let key = base64(&prospect(number));
        let create = format!(
            r#"{{"compare":[{{"key":"{key}","target":"CREATE","create_revision":"0"}}],"success":[{{"request_put":{{"key":"{key}","value":"MQ=="}}}}]}}"#
        );
        http.ask("POST", "/v3/kv/txn", &create)?;
        http.ask("POST", "/v3/kv/deleterange", &format!(r#"{{"key":"{key}"}}"#)).map(drop)
    })
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // The keys have 12 characters: no padding.
    let groups = text.as_bytes().chunks_exact(3).map(|three| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift & 63) as usize]))
    });
    groups.flatten().collect()
}

/// SET NX with an expiry, and a script that deletes the key if it is ours still.
fn redis(address: &str) -> Client {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    let script = "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
    Box::new(move |number| {
        let key = prospect(number);
        let set = ["SET", &key, "48210000000000000007", "NX", "PX", "30000"];
        let delete = ["EVAL", script, "1", &key, "48210000000000000007"];
        for command in [&set[..], &delete[..]] {
            let mut text = format!("*{}\r\n", command.len());
            for word in command {
                let _ = write!(text, "${}\r\n{word}\r\n", word.len());
            }
            stream.get_mut().write_all(text.as_bytes()).map_err(|e| e.to_string())?;
            let mut line = String::new();
            stream.read_line(&mut line).map_err(|e| e.to_string())?;
            if !line.starts_with("+OK") && !line.starts_with(":1") {
                return Err(line);
            }
        }
        Ok(())
    })
}

/// A server that reads the design word for word: tiny_http, r2d2's default pool, a transaction for
/// each request.
fn literal(url: &str) {
    const WORKERS: usize = 10;
    let http = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    let options = OptsBuilder::from_opts(Opts::from_url(url).unwrap());
    let pool = r2d2::Pool::new(MySqlConnectionManager::new(options)).unwrap();
    eprintln!("listening on {}", http.server_addr());
    // Its accepting loses connections of a burst; every new one frees one of them.
    let address = http.server_addr().to_ip().unwrap();
    thread::spawn(move || {
        loop {
            let _ = TcpStream::connect(address);
            thread::sleep(Duration::from_millis(20));
        }
    });
    eprintln!("ready");
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (http, pool) = (Arc::clone(&http), pool.clone());
            thread::spawn(move || {
                while let Ok(mut request) = http.recv() {
                    let mut body = String::new();
                    let _ = request.as_reader().read_to_string(&mut body);
                    let fields: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
                    let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
                    let ids = (text("id_prospect"), text("id_device"));
                    let mut conn = pool.get().unwrap();
                    let answer = if request.url() == "/v1/acquire" {
                        literal_acquire(&mut conn, &ids)
                    } else {
                        literal_release(&mut conn, &ids, &text("owner_token"))
                    };
                    drop(conn);
                    let (status, body) = answer.unwrap_or_else(|error| (503, error.to_string()));
                    let response = tiny_http::Response::from_string(body).with_status_code(status);
                    let _ = request.respond(response);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

fn literal_acquire(conn: &mut mysql::Conn, ids: &(String, String)) -> mysql::Result<(u16, String)> {
    let token = OwnerToken::draw();
    let mut transaction = conn.start_transaction(mysql::TxOpts::default())?;
    let sql = format!(
        "INSERT INTO {TABLE} (id_prospect, id_device, timestamp) VALUES (?, ?, CONCAT(NOW(6), ?)) \
         ON DUPLICATE KEY UPDATE timestamp = IF(LEFT(timestamp, 26) < NOW(6) - INTERVAL 30 SECOND, VALUES(timestamp), timestamp)"
    );
    transaction.exec_drop(sql, (&ids.0, &ids.1, token.secret()))?;
    let look =
        format!("SELECT RIGHT(timestamp, 20) FROM {TABLE} WHERE id_prospect = ? AND id_device = ?");
    let stored: Option<String> = transaction.exec_first(look, ids)?;
    transaction.commit()?;
    Ok(if stored.as_deref() == Some(token.secret()) {
        (200, format!(r#"{{"granted":true,"owner_token":"{}"}}"#, token.secret()))
    } else {
        (409, r#"{"granted":false}"#.to_owned())
    })
}

fn literal_release(
    conn: &mut mysql::Conn,
    ids: &(String, String),
    token: &str,
) -> mysql::Result<(u16, String)> {
    let mut transaction = conn.start_transaction(mysql::TxOpts::default())?;
    let sql = format!(
        "DELETE FROM {TABLE} WHERE id_prospect = ? AND id_device = ? AND RIGHT(timestamp, 20) = ?"
    );
    transaction.exec_drop(sql, (&ids.0, &ids.1, token))?;
    let released = transaction.affected_rows() == 1;
    transaction.commit()?;
    Ok((if released { 200 } else { 409 }, format!(r#"{{"released":{released}}}"#)))
}
