//! Private schemas of tests on a shared server.

use mysql::prelude::{FromRow, Queryable};

use super::session::next;
use super::{DatabaseServer, Session, TABLE, age};

/// A schema with the tables that a test needs.
pub struct Schema<'a> {
    server: &'a DatabaseServer,
    pub name: String,
}

impl<'a> Schema<'a> {
    pub fn create(server: &'a DatabaseServer) -> Self {
        let name = format!("own_{}", next());
        server
            .connect()
            .query_drop(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"))
            .unwrap();
        Self { server, name }
    }

    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub fn sql(&self, sql: &str) {
        self.connect().query_drop(sql).unwrap();
    }

    pub fn rows<T: FromRow>(&self, sql: &str) -> Vec<T> {
        self.connect().query(sql).unwrap()
    }

    pub fn connect(&self) -> mysql::Conn {
        let mut conn = self.server.connect();
        conn.select_db(&self.name).unwrap();
        conn
    }

    /// Creates a user with these rights on the schema. Returns its URL.
    pub fn create_user(&self, rights: &str) -> String {
        self.sql(&format!("CREATE USER bot_{}@'%' IDENTIFIED BY 'pw'", self.name));
        self.grant(rights);
        self.url().replace("root@", &format!("bot_{}:pw@", self.name))
    }

    /// Changes the password of that user. Open connections continue to work.
    pub fn change_password(&self) {
        self.sql(&format!("ALTER USER bot_{}@'%' IDENTIFIED BY 'other'", self.name));
    }

    /// Gives that user more rights.
    pub fn grant(&self, rights: &str) {
        self.sql(&format!("GRANT {rights} ON {}.* TO bot_{}@'%'", self.name, self.name));
    }

    /// Inserts a session's row as another program does; `timestamp` is an SQL expression.
    pub fn store(&self, session: &Session, timestamp: &str) {
        let Session { device, prospect } = session;
        self.sql(&format!(
            "INSERT INTO {TABLE} (id_device, id_prospect, timestamp) VALUES ('{device}', '{prospect}', {timestamp})"
        ));
    }

    /// Fills the lock table with rows of an old program, all of the device `bot`.
    pub fn fill(&self, rows: u64) {
        let mut conn = self.connect();
        // MariaDB and MySQL have different names for this limit.
        for limit in ["cte_max_recursion_depth", "max_recursive_iterations"] {
            conn.query_drop(format!("SET SESSION {limit} = 100000")).ok();
        }
        conn.query_drop(format!(
            "INSERT INTO {TABLE} (id_device, id_prospect, timestamp) \
             WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             SELECT 'bot', CONCAT('60', i), NOW() FROM n"
        ))
        .unwrap();
    }

    /// Moves the date of a session's row into the past.
    pub fn age(&self, session: &Session, seconds: u64) {
        age(&mut self.connect(), session, seconds);
    }

    /// Kills the connections of services to this schema. Returns how many.
    pub fn kill_connections(&self) -> u64 {
        self.kill_connections_with(&mut self.server.connect())
    }

    /// The same, for one who kills often.
    pub fn kill_connections_with(&self, conn: &mut mysql::Conn) -> u64 {
        let ids = format!(
            "SELECT id FROM information_schema.processlist WHERE db = '{}' AND host <> 'localhost'",
            self.name
        );
        let ids: Vec<u64> = conn.query(ids).unwrap();
        // The connection may have ended before.
        ids.iter().map(|id| u64::from(conn.query_drop(format!("KILL {id}")).is_ok())).sum()
    }
}
