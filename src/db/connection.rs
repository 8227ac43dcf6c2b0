//! One connection to the database: packets out, replies in.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, FromRowError, Row};
use r2d2::ManageConnection;
use r2d2_mysql::MySqlConnectionManager;

use super::error::ErrorKind;
use super::health::{ConnectionId, Health};
use super::statement::{Packet, Statement, Values};
use crate::metrics::METRICS;
use crate::net::sockets;

/// How long to wait for an answer: above the lock waits of `sql/connection/session.sql`, so that these end
/// in a clean error first, and far below the time a client would wait.
pub(super) const SOCKET_TIMEOUT: Duration = Duration::from_secs(3);

/// What one statement of a packet gave.
#[derive(Debug)]
pub struct Reply {
    pub rows: Vec<Row>,
    pub affected: u64,
    /// What the statement called `LAST_INSERT_ID` with.
    pub last_insert_id: u64,
}

/// A packet of which a statement failed.
#[derive(Debug)]
pub struct PacketError {
    /// Whether that was the last one of several, the `COMMIT` of a transaction.
    pub is_commit: bool,
    pub error: mysql::Error,
}

/// One connection to the database, with the settings of `sql/connection/`.
pub struct Connection {
    conn: Conn,
    id: ConnectionId,
    is_usable: bool,
    pub sysdate: Sysdate,
    health: Arc<Health>,
}

/// When `SYSDATE()` reads the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sysdate {
    /// When it is called, as our statements need it behind a row's lock.
    AtTheCall,
    /// At the statement's start, as `NOW()` does: the server runs with `--sysdate-is-now`.
    AtTheStart,
}

/// What is wrong with a server whose [`Sysdate`] is `AtTheStart`, and what to do.
pub const SYSDATE_IS_NOW: &str = "the server runs with --sysdate-is-now, so a lease that waits for a \
    lock would be dated too early: take sysdate-is-now out of my.cnf and restart the server";

impl Connection {
    /// Opens a connection and asks which server it is to.
    pub(super) fn open(
        manager: &MySqlConnectionManager,
        health: Arc<Health>,
    ) -> mysql::Result<Self> {
        let conn = manager.connect().inspect_err(|error| ErrorKind::of(error).count())?;
        METRICS.connections_opened.inc();
        let id = ConnectionId { server: 0, number: conn.connection_id(), opened: Instant::now() };
        let mut connection =
            Self { conn, id, is_usable: true, sysdate: Sysdate::AtTheCall, health };
        let identity =
            Statement::new(include_str!("../../sql/connection/server_identity.sql"), &[]);
        let identity = connection.query(&identity, &[])?.pop().map(columns);
        let (server, is_at_the_call): (_, Option<bool>) =
            identity.transpose()?.unwrap_or((0, None));
        connection.id.server = server;
        if is_at_the_call == Some(false) {
            connection.sysdate = Sysdate::AtTheStart;
        }
        Ok(connection)
    }

    /// How the database knows this connection.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whether it may be used again.
    pub fn is_usable(&self) -> bool {
        self.is_usable
    }

    /// Whether the database has closed it while it was idle.
    pub fn is_closed(&self) -> bool {
        sockets::is_closed_by_peer(self.conn.as_raw_fd())
    }

    /// Asks for an answer, whichever.
    pub fn ping(&mut self) -> mysql::Result<()> {
        self.conn.ping()
    }

    /// Runs the statements of a packet, one reply each.
    ///
    /// # Errors
    /// The first statement's that failed. If the connection failed, it is not used again.
    pub fn run(&mut self, packet: &Packet) -> Result<Vec<Reply>, PacketError> {
        let replies = self.run_uncounted(packet);
        replies.inspect_err(|failed| ErrorKind::of(&failed.error).count())
    }

    /// As [`Connection::run`], for packets whose errors are answers: the metrics do not count them.
    pub fn run_uncounted(&mut self, packet: &Packet) -> Result<Vec<Reply>, PacketError> {
        let mut replies = Vec::with_capacity(packet.len());
        let sent_at = Instant::now();
        self.collect(packet, &mut replies).map_err(|error| {
            if ErrorKind::of(&error) == ErrorKind::ConnectionLost {
                self.discard();
                if sent_at.elapsed() >= SOCKET_TIMEOUT {
                    // The network between may be down.
                    self.health.suspect_all_connections();
                } else {
                    self.health.suspect();
                }
            }
            PacketError { is_commit: packet.len() > 1 && replies.len() + 1 == packet.len(), error }
        })?;
        Ok(replies)
    }

    fn collect(&mut self, packet: &Packet, replies: &mut Vec<Reply>) -> mysql::Result<()> {
        let mut result = self.conn.query_iter(packet.text())?;
        while let Some(mut set) = result.iter() {
            let affected = set.affected_rows();
            let last_insert_id = set.last_insert_id().unwrap_or_default();
            let rows = set.by_ref().collect::<mysql::Result<_>>()?;
            replies.push(Reply { rows, affected, last_insert_id });
        }
        if replies.len() != packet.len() {
            return Err(std::io::Error::other("the answer is not complete").into());
        }
        Ok(())
    }

    /// Runs one statement.
    pub fn query(&mut self, sql: &Statement, values: &Values) -> mysql::Result<Vec<Row>> {
        let mut packet = Packet::default();
        sql.write(&mut packet, values);
        let mut replies = self.run(&packet).map_err(|failed| failed.error)?;
        Ok(replies.pop().map(|reply| reply.rows).unwrap_or_default())
    }

    /// Gives the connection up in the middle of a write that may still take effect, and has it killed.
    pub fn give_up(&mut self) -> ConnectionId {
        self.discard();
        self.health.add_lost(self.id);
        self.id
    }

    /// Ends the connection instead of giving it back to the pool.
    pub fn discard(&mut self) {
        self.is_usable = false;
    }
}

/// Reads a row into a tuple.
pub fn columns<T: mysql::prelude::FromRow>(row: Row) -> mysql::Result<T> {
    mysql::from_row_opt(row).map_err(|FromRowError(row)| {
        let names: Vec<_> = row.columns_ref().iter().map(|c| c.name_str().into_owned()).collect();
        mysql::Error::from(std::io::Error::other(format!("unexpected columns: {names:?}")))
    })
}
