//! The pool of connections.

use std::sync::Arc;
use std::time::Duration;

use mysql::{Opts, OptsBuilder};
use r2d2::ManageConnection;
use r2d2_mysql::MySqlConnectionManager;

use super::connection::{Connection, SOCKET_TIMEOUT, SYSDATE_IS_NOW, Sysdate};
use super::error::cause;
use super::health::Health;
use super::kill::kill_all;
use super::statement::{Packet, Statement, Value};

/// How long to wait for the database to accept a connection: beside the bot or in its data
/// centre, one that takes longer is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for a connection of the pool. The pool tries again after half of that at most.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a health check waits for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the pool's connections. `r2d2_mysql`'s own manager asks the database whether a connection lives
/// each time one is given back; this one remembers whether it failed.
#[derive(Clone)]
pub struct Manager {
    manager: MySqlConnectionManager,
    health: Arc<Health>,
}

impl Manager {
    fn open(&self) -> mysql::Result<Connection> {
        Connection::open(&self.manager, Arc::clone(&self.health))
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = mysql::Error;

    fn connect(&self) -> mysql::Result<Connection> {
        // The pool retries soon.
        if let Some(cause) = self.health.cause() {
            return Err(std::io::Error::other(cause).into());
        }
        let connection = self.open()?;
        match connection.sysdate {
            Sysdate::AtTheCall => Ok(connection),
            Sysdate::AtTheStart => Err(std::io::Error::other(SYSDATE_IS_NOW).into()),
        }
    }

    fn is_valid(&self, connection: &mut Connection) -> mysql::Result<()> {
        connection.ping()
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_usable()
    }
}

/// A connection that goes back to the pool when it is dropped.
pub type Pooled = r2d2::PooledConnection<Manager>;

/// The database: a pool of connections, all with the same settings.
pub struct Database {
    pool: r2d2::Pool<Manager>,
    manager: Manager,
    /// Opens connections for health checks.
    checks: Manager,
    health: Arc<Health>,
}

impl Database {
    /// At most `size` connections, with the given fixed offset as their time zone. Nothing is
    /// connected yet, and the database need not be there.
    pub fn new(url: &Opts, time_zone: &str, size: u32) -> Self {
        let mut session = Packet::default();
        let time_zone = [("time_zone", Value::Text(time_zone))];
        Statement::new(include_str!("../../sql/connection/session.sql"), &[])
            .write(&mut session, &time_zone);
        session.push(include_str!("../../sql/connection/isolation.sql"));
        let health = Arc::new(Health::default());
        let manager = |timeout| {
            let options = OptsBuilder::from_opts(url.clone())
                // Only with these does every call end; the crate's defaults wait for ever.
                .tcp_connect_timeout(Some(CONNECT_TIMEOUT.min(timeout)))
                .read_timeout(Some(timeout))
                .write_timeout(Some(timeout))
                // The crate would move from TCP on 127.0.0.1 to the server's Unix socket, around a
                // proxy.
                .prefer_socket(false)
                .init(vec!["SET NAMES utf8mb4".to_owned(), session.text().to_owned()]);
            Manager { manager: MySqlConnectionManager::new(options), health: Arc::clone(&health) }
        };
        let pool = r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(1))
            // A ping before each use would be one more round trip; an operation whose connection turns
            // out to be dead is sent again.
            .test_on_check_out(false)
            .connection_timeout(POOL_TIMEOUT)
            // The requests that wait for a connection report the cause.
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager(SOCKET_TIMEOUT));
        Self { pool, manager: manager(SOCKET_TIMEOUT), checks: manager(CHECK_TIMEOUT), health }
    }

    /// The database's health.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// A connection of the pool. One that the database, or a proxy, has closed is not used: a release
    /// could not tell its own delete from somebody else's.
    ///
    /// # Errors
    /// The cause, if there is no connection within [`POOL_TIMEOUT`].
    pub fn pooled(&self) -> Result<Pooled, String> {
        loop {
            let mut pooled = self.pool.get().map_err(|error| {
                self.health.suspect();
                error.to_string()
            })?;
            if pooled.id().opened >= self.health.trusted_since() && !pooled.is_closed() {
                return Ok(pooled);
            }
            pooled.discard();
        }
    }

    /// A connection outside of the pool. Its error is the database's own; the pool's would only say
    /// that time ran out.
    pub fn connect(&self) -> mysql::Result<Connection> {
        self.manager.open()
    }

    /// Waits until a health check is due, at most `timeout`, and makes it.
    pub fn check_health(&self, timeout: Duration) {
        self.health.check_when_due(
            timeout,
            || self.connect_to_check().map_err(|error| cause(&error)),
            |connection, lost| match connection {
                Some(mut connection) => kill_all(&mut connection, lost),
                None => Vec::new(),
            },
        );
    }

    /// Finds out whether the database answers; a connection, if there is one to be had.
    fn connect_to_check(&self) -> mysql::Result<Option<Connection>> {
        match self.checks.open() {
            Ok(mut connection) => {
                connection.ping()?;
                Ok(Some(connection))
            }
            // It answers, if only that it has no connection for us: those in the pool may be good.
            Err(mysql::Error::MySqlError(_)) if self.pool.state().connections > 0 => Ok(None),
            Err(error) => Err(error),
        }
    }
}
