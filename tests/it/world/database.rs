//! Private database servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mysql::prelude::Queryable;
use session_lock::testing::{DATABASE, PrivateDatabase};

use super::{free_port, migrate, signal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    MariaDb(MariaDb),
    MySql,
}

/// The version of MariaDB: that of this Debian release, or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MariaDb {
    V10_5,
    Installed,
    V11_8,
}

/// The engines with their names, which `tests/install` uses too, and the paths of their servers,
/// relative to this folder unless absolute.
const ENGINES: [(&str, Engine, &str); 4] = [
    ("mariadb-10.5", Engine::MariaDb(MariaDb::V10_5), "target/mariadb-10.5/mariadbd"),
    ("mariadb", Engine::MariaDb(MariaDb::Installed), "/usr/sbin/mariadbd"),
    ("mariadb-11.8", Engine::MariaDb(MariaDb::V11_8), "target/mariadb-11.8/mariadbd"),
    ("mysql", Engine::MySql, "target/mysql/mysqld"),
];

/// The names of the engines that are tested by default.
const TESTED: &str = "mariadb,mysql";

impl Engine {
    /// The engines that `DATABASES` names.
    pub fn tested() -> Vec<Self> {
        let names = std::env::var("DATABASES").unwrap_or_else(|_| TESTED.to_owned());
        let find = |name: &str| {
            let found = ENGINES.iter().find(|(known, ..)| *known == name);
            let known = || ENGINES.map(|(known, ..)| known).join(",");
            found.unwrap_or_else(|| panic!("DATABASES={names}: choose from {}", known())).1
        };
        names.split(',').map(find).collect()
    }

    pub fn name(self) -> &'static str {
        self.in_table().0
    }

    fn program(self) -> PathBuf {
        let (name, _, program) = self.in_table();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
        assert!(program.exists(), "{} is missing: run tests/install {name}", program.display());
        program
    }

    fn in_table(self) -> &'static (&'static str, Self, &'static str) {
        ENGINES.iter().find(|(_, engine, _)| *engine == self).expect("every engine is in the table")
    }
}

/// A private database server that also listens on a port.
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
            // No test cuts the power. Without these options, a busy disk delays every write.
            "--innodb-flush-log-at-trx-commit=2",
            "--sync-binlog=0",
            "--innodb-flush-method=nosync",
        ];
        all.extend(options);
        let private = PrivateDatabase::start(&engine.program(), &all);
        Self { private: private.unwrap_or_else(|error| panic!("{error}")), port }
    }

    /// Starts a server and creates the tables in [`DATABASE`].
    pub fn start_migrated(engine: Engine, options: &[&str]) -> Self {
        let server = Self::start(engine, options);
        migrate(&server.url(DATABASE));
        server
    }

    /// Stops the server process without ending it, so that it hangs.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Kills the server, like a crash of the machine.
    pub fn crash(&self) {
        self.signal("-KILL");
    }

    pub fn is_running(&self) -> bool {
        self.pid_file().exists()
    }

    /// Starts it again after it was killed.
    pub fn restart(&mut self) {
        self.private.restart().unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.pid_file()).unwrap();
        signal(pid.trim(), name);
        if name == "-KILL" {
            // Ends the server cleanly.
            std::fs::remove_file(self.pid_file()).unwrap();
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.private.folder().join("pid")
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// By the Unix socket.
    pub fn socket_url(&self) -> String {
        self.private.url()
    }

    pub fn url(&self, schema: &str) -> String {
        format!("mysql://root@{}/{schema}", self.address())
    }

    /// Connects through the server's Unix socket, which works independently of the port.
    pub fn connect(&self) -> mysql::Conn {
        mysql::Conn::new(mysql::Opts::from_url(&self.private.url()).unwrap()).unwrap()
    }

    /// Creates the user `bot` with a bot's rights, because root may write to a read-only server.
    /// Returns its URL.
    pub fn create_bot(&self) -> String {
        let mut root = self.connect();
        root.query_drop("CREATE USER bot@'127.0.0.1'").unwrap();
        let rights = "SELECT, INSERT, UPDATE, DELETE";
        root.query_drop(format!("GRANT {rights} ON {DATABASE}.* TO bot@'127.0.0.1'")).unwrap();
        self.url(DATABASE).replace("root@", "bot@")
    }
}
