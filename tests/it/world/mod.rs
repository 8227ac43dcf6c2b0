//! What the tests share: private databases, the service as a child process, an HTTP client.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::{FromRow, Queryable};
use serde_json::{Value, json};
use session_lock::testing::{DATABASE, PrivateDatabase};

pub const TABLE: &str = "ai_whatsapp_session_nodepath";

/// The program under test: the one that cargo built, or `BINARY` in the environment.
pub fn binary() -> String {
    std::env::var("BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_session-lock").to_owned())
}

/// Everything in a test waits at most so long; generous, because the machine is shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub mod proxy;

pub type Test = (&'static str, fn(&World));

/// Lists a module's tests: a test that is not listed is dead code, which clippy refuses.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub const TESTS: &[$crate::world::Test] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name)),+];
    };
}
pub(crate) use tests;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    MariaDb,
    MySql,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
        }
    }

    fn program(self) -> PathBuf {
        let (program, hint) = match self {
            Self::MariaDb => {
                (PathBuf::from("/usr/sbin/mariadbd"), "apt-get install mariadb-server")
            }
            Self::MySql => {
                let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/mysql/mysqld");
                (PathBuf::from(folder), "run tests/install mysql")
            }
        };
        assert!(program.exists(), "{} is missing: {hint}", program.display());
        program
    }
}

/// A private database server that listens on a port as well.
pub struct DatabaseServer {
    private: PrivateDatabase,
    pub port: u16,
}

impl DatabaseServer {
    pub fn start(engine: Engine, options: &[&str]) -> Self {
        Self::start_on(engine, free_port(), options)
    }

    pub fn start_on(engine: Engine, port: u16, options: &[&str]) -> Self {
        let port_option = format!("--port={port}");
        let mut all = vec![
            port_option.as_str(),
            "--bind-address=127.0.0.1",
            "--max-connections=400",
            // No test cuts the power, and a busy disk keeps nobody waiting like this.
            "--innodb-flush-log-at-trx-commit=2",
            "--sync-binlog=0",
            "--innodb-flush-method=nosync",
        ];
        all.extend(options);
        let private = PrivateDatabase::start(&engine.program(), &all);
        Self { private: private.unwrap_or_else(|error| panic!("{error}")), port }
    }

    /// Stops the server process without ending it: it hangs.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Kills the server, as a crash of the machine does.
    pub fn crash(&self) {
        self.signal("-KILL");
    }

    /// Starts it again after it was killed.
    pub fn restart(&mut self) {
        self.private.restart().unwrap_or_else(|error| panic!("{error}"));
    }

    fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.private.folder().join("pid")).unwrap();
        assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
    }

    pub fn url(&self, schema: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{schema}", self.port)
    }

    /// Through the socket, whatever the port does.
    pub fn connect(&self) -> mysql::Conn {
        mysql::Conn::new(mysql::Opts::from_url(&self.private.url()).unwrap()).unwrap()
    }
}

/// The service on one of the two databases.
pub struct World {
    pub engine: Engine,
    pub service: Service,
    pub database: DatabaseServer,
    row_lock_look: Mutex<()>,
}

impl World {
    pub fn start(engine: Engine) -> Self {
        let database = DatabaseServer::start(engine, &[]);
        let url = database.url(DATABASE);
        migrate(&url);
        Self { engine, service: Service::start(&url, &[]), database, row_lock_look: Mutex::new(()) }
    }

    /// One more service on the same table, with these flags.
    pub fn serve(&self, flags: &[&str]) -> Service {
        Service::start(&self.database.url(DATABASE), flags)
    }

    /// A schema of one's own, with the tables in it.
    pub fn own_table(&self) -> Schema<'_> {
        let schema = self.schema();
        migrate(&schema.url());
        schema
    }

    /// An empty schema of the caller's own, on the same server.
    pub fn schema(&self) -> Schema<'_> {
        let name = format!("own_{}", next());
        self.sql(format!("CREATE DATABASE {name}"));
        Schema { server: &self.database, name }
    }

    pub fn sql(&self, sql: impl AsRef<str>) {
        write(&mut self.database.connect(), sql.as_ref());
    }

    pub fn rows<T: FromRow>(&self, sql: impl AsRef<str>) -> Vec<T> {
        self.database.connect().query(sql.as_ref()).unwrap()
    }

    /// The stored timestamp of a session's row.
    pub fn stored(&self, session: &Session) -> Option<String> {
        self.rows(format!("SELECT timestamp FROM {TABLE} WHERE {session}")).pop()
    }

    /// Puts a row there, as another program would.
    pub fn store(&self, session: &Session, timestamp: &str) {
        let Session { device, prospect } = session;
        let sql =
            format!("INSERT INTO {TABLE} (id_device, id_prospect, timestamp) VALUES (?, ?, ?)");
        self.database.connect().exec_drop(sql, (device, prospect, timestamp)).unwrap();
    }

    /// A neighbour that holds the row's lock until it says `ROLLBACK`.
    pub fn lock_row(&self, session: &Session) -> mysql::Conn {
        // Whoever waits for this row bars the gap before it: another row keeps other tests out of that.
        let before = format!(
            "INSERT IGNORE INTO {TABLE} (id_prospect, id_device, timestamp) VALUES ('{}', '!', '')",
            session.prospect
        );
        let mut neighbour = self.database.connect();
        neighbour.query_drop(before).unwrap();
        // Otherwise it would lock that gap itself.
        let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        neighbour.query_drop(isolation).unwrap();
        neighbour.query_drop("START TRANSACTION").unwrap();
        // As a program does that knows the session. Without the index, the database may scan, and lock,
        // what other tests need.
        let index = "FORCE INDEX (uniq_session)";
        let sql = format!("SELECT * FROM {TABLE} {index} WHERE {session} FOR UPDATE");
        neighbour.query_drop(sql).unwrap();
        neighbour
    }

    /// A neighbour that has inserted the session's row, and may still undo that.
    pub fn insert_row(&self, session: &Session) -> mysql::Conn {
        let Session { device, prospect } = session;
        let mut neighbour = self.database.connect();
        neighbour.query_drop("START TRANSACTION").unwrap();
        let sql =
            format!("INSERT INTO {TABLE} (id_device, id_prospect, timestamp) VALUES (?, ?, '')");
        neighbour.exec_drop(sql, (device, prospect)).unwrap();
        neighbour
    }

    /// Waits until a service's write of this session's row is with the database, where it waits
    /// for a lock.
    pub fn wait_for_write(&self, session: &Session) {
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist \
                       WHERE info REGEXP '^ *(INSERT INTO|DELETE)' \
                       AND info LIKE CONCAT('%', ?, '%')";
        let mut conn = self.database.connect();
        eventually(
            || format!("a write of {session}"),
            || {
                // MySQL cannot show this list while somebody's statement has an emoji in it.
                let count = conn.exec_first::<u64, _, _>(waiting, (&session.prospect,));
                count.ok().flatten().filter(|count| *count > 0)
            },
        );
    }

    /// Whether somebody is seen to wait for the lock on a session's row. Who waits for a second gives
    /// up, so on a busy machine nobody may be seen.
    pub fn sees_row_lock(&self, session: &Session) -> bool {
        let waiting = format!(
            "SELECT COUNT(*) FROM information_schema.innodb_trx \
             WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%{}%'",
            session.prospect
        );
        let mut conn = self.database.connect();
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            // Others have their look, too.
            thread::sleep(Duration::from_millis(1));
            // It shows what it showed before to who looks again within 100 ms of anybody.
            let _alone = self.row_lock_look.lock().unwrap();
            thread::sleep(Duration::from_millis(110));
            if conn.query_first::<u64, _>(&waiting).unwrap() > Some(0) {
                return true;
            }
        }
        false
    }

    /// What is answered to who is seen to wait for the row of a session whose lease ends meanwhile.
    pub fn expire_behind_a_lock(
        &self,
        session: &Session,
        ask: impl Fn(&Service) -> Reply + Sync,
    ) -> Reply {
        let is_over = format!(
            "SELECT TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)) >= 30000000 FROM {TABLE} WHERE {session}"
        );
        // On a busy machine it may have given up before it is seen.
        for _ in 0..10 {
            // A good half second is left at the look.
            self.sql("DO SLEEP(1.4 - MICROSECOND(NOW(6)) / 1000000)");
            self.sql(format!(
                "UPDATE {TABLE} SET timestamp = CONCAT(DATE_FORMAT(NOW() - INTERVAL 29 SECOND, \
                 '%Y-%m-%d %H:%i:%s'), SUBSTRING(timestamp, 20)) WHERE {session}"
            ));
            let mut neighbour = self.lock_row(session);
            let (is_seen, reply) = thread::scope(|scope| {
                let asked = scope.spawn(|| ask(&self.service));
                let is_seen = self.sees_row_lock(session);
                eventually(
                    || "the lease expires",
                    || {
                        let over: Option<bool> = neighbour.query_first(&is_over).unwrap();
                        over.filter(|over| *over)
                    },
                );
                neighbour.query_drop("ROLLBACK").unwrap();
                (is_seen, asked.join().unwrap())
            });
            if is_seen && reply.status != 503 {
                return reply;
            }
        }
        panic!("nobody was seen to wait for {session}");
    }

    /// Lets time pass for one session: moves its row's date into the past.
    pub fn age(&self, session: &Session, seconds: u64) {
        age(&mut self.database.connect(), session, seconds);
    }
}

/// Writes as another program does, again after a deadlock: on a small table the database may scan,
/// and lock, all of it, and so meets the locks of other tests. While it waits for one, it keeps no other
/// row or gap locked.
pub fn write(conn: &mut mysql::Conn, sql: &str) {
    const DEADLOCK: u16 = 1213;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").unwrap();
    while let Err(error) = conn.query_drop(sql) {
        let is_deadlock = matches!(&error, mysql::Error::MySqlError(e) if e.code == DEADLOCK);
        assert!(is_deadlock, "{error}");
    }
}

pub fn age(conn: &mut mysql::Conn, session: &Session, seconds: u64) {
    write(
        conn,
        &format!(
            "UPDATE {TABLE} SET timestamp = CONCAT(DATE_FORMAT(CAST(LEFT(timestamp, 19) AS DATETIME) \
             - INTERVAL {seconds} SECOND, '%Y-%m-%d %H:%i:%s'), SUBSTRING(timestamp, 20)) WHERE {session}"
        ),
    );
    assert_eq!(conn.affected_rows(), 1, "{session} has a row to age");
}

/// A schema with whatever tables a test needs.
pub struct Schema<'a> {
    server: &'a DatabaseServer,
    pub name: String,
}

impl Schema<'_> {
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub fn sql(&self, sql: &str) {
        self.connect().query_drop(sql).unwrap();
    }

    pub fn connect(&self) -> mysql::Conn {
        let mut conn = self.server.connect();
        conn.select_db(&self.name).unwrap();
        conn
    }
}

/// A conversation that no other test knows. Displayed as a WHERE condition.
#[derive(Clone, Debug)]
pub struct Session {
    pub device: String,
    pub prospect: String,
}

impl Session {
    pub fn new() -> Self {
        Self { device: format!("bot{}", next()), prospect: format!("6012{:07}", next()) }
    }

    /// The fields of a request, with these besides.
    pub fn with(&self, mut fields: Value) -> Value {
        fields["id_device"] = json!(self.device);
        fields["id_prospect"] = json!(self.prospect);
        fields
    }

    pub fn path(&self) -> String {
        let encode =
            |id| percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        format!("/v1/locks/{}/{}", encode(&self.device), encode(&self.prospect))
    }
}

impl Display for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "id_device = '{}' AND id_prospect = '{}'", self.device, self.prospect)
    }
}

fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A port that nothing listens on. Whoever lets the system choose one does not get it meanwhile.
pub fn free_port() -> u16 {
    /// Below those that the system gives to who has no preference.
    const PORTS: Range<u64> = 12_000..32_000;
    let count = PORTS.end - PORTS.start;
    let first = u64::from(std::process::id()) * 500;
    let mut ports = (0..count).map(|_| {
        let port = PORTS.start + (first + next()) % count;
        u16::try_from(port).expect("they are below 65536")
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Sets it in the end, so that those who go by it end, whatever becomes of the test.
pub struct Done<'a>(pub &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where clients connect.
#[derive(Clone, Debug)]
pub enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub trait Stream: Read + Write + Send {
    fn patience(&self, read: Duration, write: Duration);
}

impl Stream for TcpStream {
    fn patience(&self, read: Duration, write: Duration) {
        self.set_read_timeout(Some(read)).unwrap();
        self.set_write_timeout(Some(write)).unwrap();
    }
}

impl Stream for UnixStream {
    fn patience(&self, read: Duration, write: Duration) {
        self.set_read_timeout(Some(read)).unwrap();
        self.set_write_timeout(Some(write)).unwrap();
    }
}

impl Door {
    pub fn try_connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream: Box<dyn Stream> = match self {
            Self::Tcp(address) => Box::new(TcpStream::connect(address)?),
            Self::Unix(path) => Box::new(UnixStream::connect(path)?),
        };
        stream.patience(PATIENCE, PATIENCE);
        Ok(stream)
    }

    pub fn connect(&self) -> Box<dyn Stream> {
        self.try_connect().unwrap()
    }

    /// Sends this on a new connection.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Box<dyn Stream> {
        let mut stream = self.connect();
        // Whoever is cut off meanwhile notices when it reads.
        let _ = stream.write_all(bytes.as_ref());
        stream
    }

    /// Sends this on a new connection; everything that comes until its end.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut text = Vec::new();
        // A reset after the answer is no worse than an end.
        let _ = self.send(bytes).read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// The real binary, serving.
pub struct Service {
    child: Child,
    pub door: Door,
    /// Where that is, unless it is a Unix socket.
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    agent: ureq::Agent,
}

impl Service {
    /// Starts it and waits until it is ready.
    pub fn start(url: &str, flags: &[&str]) -> Self {
        let service = Self::start_unready(url, flags);
        service.wait_for_line("INFO  ready");
        service
    }

    /// Starts it and waits until it listens.
    pub fn start_unready(url: &str, flags: &[&str]) -> Self {
        Self::spawn(Command::new(binary()).args(["serve", "--database-url", url]).args(flags))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let command = command.env("SESSION_LOCK_LISTEN", "127.0.0.1:0");
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line));
        });
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        let agent = ureq::Agent::new_with_config(config.build());
        let nowhere = ([127, 0, 0, 1], 0).into();
        let mut service = Self { child, door: Door::Tcp(nowhere), address: nowhere, log, agent };
        let line = service.wait_for_line("listening on ");
        let at = line.rsplit(' ').next().unwrap();
        service.door = match at.strip_prefix("unix:") {
            Some(path) => Door::Unix(path.into()),
            None => Door::Tcp(at.parse().unwrap()),
        };
        if let Door::Tcp(address) = service.door {
            service.address = address;
        }
        service
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it takes, of the machine.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = resident.and_then(|line| line.split_whitespace().next());
        number.unwrap().parse().unwrap()
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The first line of the log that contains this.
    pub fn wait_for_line(&self, part: &str) -> String {
        let what = || format!("a line with {part:?} in {:#?}", self.log());
        eventually(what, || self.log().into_iter().find(|line| line.contains(part)))
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end; the exit status, `None` after a signal.
    pub fn wait(&mut self) -> Option<i32> {
        eventually(|| "the service ends", || self.child.try_wait().unwrap()).code()
    }

    pub fn post(&self, path: &str, body: impl Display) -> Reply {
        let request = self.agent.post(format!("http://{}{path}", self.address));
        Reply::read(request.send(body.to_string()))
    }

    pub fn get(&self, path: &str) -> Reply {
        Reply::read(self.agent.get(format!("http://{}{path}", self.address)).call())
    }

    /// What is no JSON.
    pub fn text(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.address);
        self.agent.get(url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    pub fn acquire(&self, session: &Session, fields: Value) -> Reply {
        self.post("/v1/acquire", session.with(fields))
    }

    /// Acquires a session that must be free; its owner token.
    pub fn hold(&self, session: &Session) -> String {
        let reply = self.acquire(session, json!({}));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text("owner_token")
    }

    pub fn renew(&self, session: &Session, owner_token: &str, ttl_ms: u64) -> Reply {
        let fields = json!({"owner_token": owner_token, "ttl_ms": ttl_ms});
        self.post("/v1/renew", session.with(fields))
    }

    /// How many stand in line for a session.
    pub fn waiters(&self, session: &Session) -> u64 {
        self.get(&session.path()).json["waiters"].as_u64().unwrap_or(0)
    }

    /// Waits until so many stand in line.
    pub fn wait_for_waiters(&self, session: &Session, count: u64) {
        eventually(
            || format!("{count} wait for {session}"),
            || (self.waiters(session) == count).then_some(()),
        );
    }

    /// Acquires a free session for a message; the owner token.
    pub fn hold_for(&self, session: &Session, message_id: &str) -> String {
        let reply = self.acquire(session, json!({"message_id": message_id}));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text("owner_token")
    }

    pub fn commit(&self, session: &Session, owner_token: &str, message_id: &str) -> Reply {
        let fields = json!({"owner_token": owner_token, "message_id": message_id});
        self.post("/v1/commit", session.with(fields))
    }

    pub fn release(&self, session: &Session, owner_token: &str) -> Reply {
        self.post("/v1/release", session.with(json!({"owner_token": owner_token})))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            eprintln!("its last lines: {:#?}", &log[log.len().saturating_sub(10)..]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub json: Value,
    /// The body, byte for byte.
    pub text: String,
    pub retry_after_s: Option<u64>,
}

impl Reply {
    fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Self {
        Self::try_read(response).unwrap()
    }

    /// The answer, if it came whole.
    pub fn try_read(
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Self, ureq::Error> {
        let mut response = response?;
        let text = response.body_mut().read_to_string()?;
        let retry_after = response
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap().parse().unwrap());
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        Ok(Self { status: response.status().as_u16(), json, text, retry_after_s: retry_after })
    }

    pub fn number(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap_or_else(|| panic!("{field} in {self:?}"))
    }

    pub fn text(&self, field: &str) -> String {
        self.json[field].as_str().unwrap_or_else(|| panic!("{field} in {self:?}")).to_owned()
    }

    #[track_caller]
    pub fn assert(&self, status: u16, json: &Value) {
        assert_eq!((self.status, &self.json), (status, json));
    }

    /// A grant of this kind.
    #[track_caller]
    pub fn assert_granted(&self, how: &str) {
        assert_eq!((self.status, &self.json["how"]), (200, &json!(how)), "{self:?}");
    }

    #[track_caller]
    pub fn assert_held(&self) {
        assert_eq!((self.status, &self.json["reason"]), (409, &json!("held")), "{self:?}");
    }

    /// No release, for whatever reason.
    #[track_caller]
    pub fn assert_refused_or_lost(&self) {
        assert!(matches!(self.status, 409 | 503), "{self:?}");
    }

    /// A refusal with this code; its message.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) -> String {
        assert_eq!((self.status, &self.json["error"]["code"]), (status, &json!(code)), "{self:?}");
        let message = self.json["error"]["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{self:?}");
        message.to_owned()
    }
}

/// What a command of the binary printed, and its exit status.
#[derive(Debug)]
pub struct Printed {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Printed {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

pub fn run(arguments: &[&str]) -> Printed {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    output.into()
}

/// Creates the tables.
#[track_caller]
pub fn migrate(url: &str) {
    let printed = run(&["migrate", "--database-url", url]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
}

/// Waits until something has happened.
pub fn eventually<T, D: Display>(
    what: impl Fn() -> D,
    mut happened: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = happened() {
            return value;
        }
        assert!(Instant::now() < until, "never happened: {}", what());
        thread::sleep(Duration::from_millis(10));
    }
}
