//! The pool of connections.

use std::sync::Arc;
use std::time::Duration;

use mysql::{Opts, OptsBuilder};
use r2d2::ManageConnection;

use super::connect::Connector;
use super::connection::{Connection, SOCKET_TIMEOUT, SYSDATE_IS_NOW};
use super::error::cause;
use super::health::{HANGING_WRITES, Health, Kills};
use super::kill::kill_all;
use super::refusal::has_answered;
use super::statement::{Packet, Statement, Value};

/// How long to wait for a connection of the pool. The pool retries after at most half of this time.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a health check waits for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the pool's connections. The manager of `r2d2_mysql` pings the database each time a
/// connection is returned; this manager remembers whether the connection failed.
#[derive(Clone)]
pub struct Manager {
    connector: Connector,
    health: Arc<Health>,
}

impl Manager {
    fn open(&self) -> mysql::Result<Connection> {
        Connection::open(&self.connector, Arc::clone(&self.health))
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = mysql::Error;

    fn connect(&self) -> mysql::Result<Connection> {
        // Fail at once, without a timeout: the pool retries soon.
        if let Some(cause) = self.health.cause() {
            return Err(std::io::Error::other(cause).into());
        }
        let connection = self.open()?;
        if connection.is_sysdate_now {
            return Err(std::io::Error::other(SYSDATE_IS_NOW).into());
        }
        Ok(connection)
    }

    fn is_valid(&self, connection: &mut Connection) -> mysql::Result<()> {
        connection.ping()
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_usable()
    }
}

/// A connection that returns to the pool when it is dropped.
pub type Pooled = r2d2::PooledConnection<Manager>;

/// The database: a pool of connections, all with the same settings.
pub struct Database {
    pool: r2d2::Pool<Manager>,
    manager: Manager,
    /// Opens connections with the shorter timeout of health checks.
    checks: Manager,
}

impl Database {
    /// Creates a pool of at most `size` connections, with this fixed offset as their time zone.
    /// Does not connect yet.
    pub fn new(url: &Opts, time_zone: &str, size: u32) -> Self {
        let mut session = Packet::default();
        let time_zone = [("time_zone", Value::Text(time_zone))];
        Statement::new(include_str!("../../sql/connection/session.sql"), &[])
            .write(&mut session, &time_zone);
        session.push(include_str!("../../sql/connection/isolation.sql"));
        let health = Arc::new(Health::default());
        let options = OptsBuilder::from_opts(url.clone())
            // Otherwise the driver replaces TCP to 127.0.0.1 by the server's Unix socket, which
            // bypasses a proxy.
            .prefer_socket(false)
            .init(vec!["SET NAMES utf8mb4".to_owned(), session.text().to_owned()]);
        let connector = Connector::new(options.into());
        let manager = |timeout| Manager {
            connector: connector.with_timeout(timeout),
            health: Arc::clone(&health),
        };
        let pool = r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(1))
            // A ping before each use would cost a round trip. If the connection is lost, the
            // operation is sent again.
            .test_on_check_out(false)
            .connection_timeout(POOL_TIMEOUT)
            // The requests that wait for a connection report the error.
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager(SOCKET_TIMEOUT));
        Self { pool, manager: manager(SOCKET_TIMEOUT), checks: manager(CHECK_TIMEOUT) }
    }

    pub fn health(&self) -> &Health {
        &self.manager.health
    }

    /// A connection of the pool that neither the database nor a proxy has closed. On a closed
    /// connection, a release could not distinguish its own delete from another program's. The error
    /// says why there is no connection within [`POOL_TIMEOUT`].
    pub fn pooled(&self) -> Result<Pooled, String> {
        loop {
            let mut pooled = self.pool.get().map_err(|error| {
                self.health().suspect();
                error.to_string()
            })?;
            if pooled.id().opened >= self.health().trusted_since() && !pooled.is_closed() {
                return Ok(pooled);
            }
            pooled.discard();
        }
    }

    /// Opens a connection outside the pool. Its error is the database's, where the pool would only
    /// report a timeout.
    pub fn connect(&self) -> mysql::Result<Connection> {
        self.manager.open()
    }

    /// Waits until a health check is due, and runs it. The check connects, ends lost connections, and
    /// lets `verify` find out whether leases can be written.
    pub fn check_health(&self, verify: impl FnOnce(&mut Connection) -> Result<(), String>) {
        self.health().check_when_due(|lost| match self.connect_to_check() {
            Ok(Some(mut connection)) => {
                let kills = kill_all(&mut connection, lost);
                // The server cannot finish the writes of these connections, so the next write would
                // hang as well.
                let checked = match kills.hung.len() {
                    0 => verify(&mut connection),
                    hung => Err(format!("{hung} connections still wait for a write to end although they were killed: {HANGING_WRITES}")),
                };
                (kills, checked)
            }
            Ok(None) => (Kills::default(), Ok(())),
            Err(error) => (Kills::default(), Err(cause(&error))),
        });
    }

    /// Opens a connection for a check. Returns `None` if the database answers but accepts no
    /// connection.
    fn connect_to_check(&self) -> mysql::Result<Option<Connection>> {
        match self.checks.open() {
            Ok(mut connection) => {
                connection.ping()?;
                Ok(Some(connection))
            }
            // The database answers, but refuses another connection. The connections in the pool may
            // still work.
            Err(error) if has_answered(&error) && self.pool.state().connections > 0 => Ok(None),
            Err(error) => Err(error),
        }
    }
}
