//! One connection to the database: packets out, replies in.

use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, FromRowError, Row};

use super::connect::{Connector, no_panic};
use super::error::ErrorKind;
use super::health::{ConnectionId, Health};
use super::statement::{Packet, Statement, Values};
use crate::metrics::METRICS;
use crate::net::sockets;

/// How long to wait for an answer: longer than the lock waits of `sql/connection/session.sql`,
/// which so end in a clean error first, and much shorter than the timeout of a client.
pub(super) const SOCKET_TIMEOUT: Duration = Duration::from_secs(3);

/// The reply to one statement of a packet.
#[derive(Debug)]
pub struct Reply {
    pub rows: Vec<Row>,
    pub affected: u64,
    /// The argument with which the statement called `LAST_INSERT_ID`.
    pub last_insert_id: u64,
}

/// A statement of a packet failed.
#[derive(Debug)]
pub struct PacketError {
    /// Whether it was the last of several statements: the `COMMIT` of a transaction.
    pub is_commit: bool,
    pub error: mysql::Error,
}

/// One connection to the database, with the settings of `sql/connection/`.
pub struct Connection {
    conn: Conn,
    id: ConnectionId,
    is_usable: bool,
    /// Whether `SYSDATE()` reads the clock at the statement's start, as `NOW()` does: the server
    /// runs with `--sysdate-is-now`. The statements need the clock after the wait for a row's lock.
    pub is_sysdate_now: bool,
    health: Arc<Health>,
}

/// The problem of a server with `--sysdate-is-now`, and its remedy.
pub const SYSDATE_IS_NOW: &str = "the server runs with --sysdate-is-now, so a lease that waits for a \
    lock would be dated too early: take sysdate-is-now out of my.cnf and restart the server";

impl Connection {
    /// Opens a connection, and reads the identity of its server.
    pub(super) fn open(connector: &Connector, health: Arc<Health>) -> mysql::Result<Self> {
        let conn = connector.connect().inspect_err(|error| ErrorKind::of(error).count())?;
        METRICS.connections_opened.inc();
        let in_handshake = conn.connection_id();
        let id = ConnectionId { server: 0, number: None, opened: Instant::now() };
        let mut connection = Self { conn, id, is_usable: true, is_sysdate_now: false, health };
        let sql = Statement::new(include_str!("../../sql/connection/server_identity.sql"), &[]);
        if let Some(row) = connection.query(&sql, &[])?.pop() {
            let (server, number, is_at_the_call): (_, _, Option<bool>) = columns(row)?;
            connection.id.server = server;
            connection.id.number = connector.number_for_kill(in_handshake, number);
            connection.is_sysdate_now = is_at_the_call == Some(false);
        }
        Ok(connection)
    }

    pub fn id(&self) -> ConnectionId {
        self.id
    }

    pub fn is_usable(&self) -> bool {
        self.is_usable
    }

    /// Whether the database closed the connection while it was idle.
    pub fn is_closed(&self) -> bool {
        sockets::is_closed_by_peer(self.conn.as_raw_fd())
    }

    pub fn ping(&mut self) -> mysql::Result<()> {
        no_panic(|| self.conn.ping())
    }

    /// Whether the server is read-only, even if this user could write.
    pub fn is_read_only(&mut self) -> mysql::Result<bool> {
        let mut packet = Packet::for_writable_server();
        packet.push("DO 0");
        match self.send(&packet) {
            Ok(_) => Ok(false),
            Err(failed) if ErrorKind::of(&failed.error) == ErrorKind::ReadOnly => Ok(true),
            Err(failed) => Err(failed.error),
        }
    }

    /// Runs the statements of a packet. Returns one reply per statement, or the error of the first
    /// one that fails. A lost connection is not used again.
    pub fn run(&mut self, packet: &Packet) -> Result<Vec<Reply>, PacketError> {
        self.send(packet).inspect_err(|failed| ErrorKind::of(&failed.error).count())
    }

    /// Like [`Connection::run`], for a packet that checks a row's lock. A locked row is not counted
    /// as an error.
    pub fn run_check(&mut self, packet: &Packet) -> Result<Vec<Reply>, PacketError> {
        self.send(packet).inspect_err(|failed| match ErrorKind::of(&failed.error) {
            ErrorKind::RowLocked => {}
            kind => kind.count(),
        })
    }

    fn send(&mut self, packet: &Packet) -> Result<Vec<Reply>, PacketError> {
        let mut replies = Vec::with_capacity(packet.len());
        let sent_at = Instant::now();
        no_panic(|| self.collect(packet, &mut replies)).map_err(|error| {
            match ErrorKind::of(&error) {
                ErrorKind::ConnectionLost => {
                    self.discard();
                    if sent_at.elapsed() >= SOCKET_TIMEOUT {
                        // If the network is down, all connections are lost.
                        self.health.suspect_all_connections();
                    } else {
                        self.health.suspect();
                    }
                }
                ErrorKind::ReadOnly => {
                    // All connections may lead to this server. A new one may reach the primary.
                    self.discard();
                    self.health.suspect_all_connections();
                }
                _ => {}
            }
            PacketError { is_commit: packet.len() > 1 && replies.len() + 1 == packet.len(), error }
        })?;
        Ok(replies)
    }

    fn collect(&mut self, packet: &Packet, replies: &mut Vec<Reply>) -> mysql::Result<()> {
        // If these results were dropped after a panic of the driver, they would continue to read,
        // and another panic would end the process. They own nothing after everything was read.
        let sent = self.conn.query_iter(packet.text()).map(ManuallyDrop::new);
        let is_guarded = packet.is_guarded();
        let mut result = if is_guarded { sent.map_err(read_only)? } else { sent? };
        if is_guarded && let Some(mut set) = result.iter().map(ManuallyDrop::new) {
            set.by_ref().for_each(drop);
        }
        while let Some(mut set) = result.iter().map(ManuallyDrop::new) {
            let affected = set.affected_rows();
            let last_insert_id = set.last_insert_id().unwrap_or_default();
            let rows = set.by_ref().collect::<mysql::Result<_>>()?;
            replies.push(Reply { rows, affected, last_insert_id });
        }
        if replies.len() != packet.len() {
            return Err(std::io::Error::other("the answer is incomplete").into());
        }
        Ok(())
    }

    /// Rolls back the open transaction, if there is one.
    pub fn rollback(&mut self) -> Result<(), PacketError> {
        let mut packet = Packet::default();
        packet.push("ROLLBACK");
        self.run(&packet).map(drop)
    }

    /// Runs one statement.
    pub fn query(&mut self, sql: &Statement, values: &Values) -> mysql::Result<Vec<Row>> {
        let mut packet = Packet::default();
        sql.write(&mut packet, values);
        let mut replies = self.run(&packet).map_err(|failed| failed.error)?;
        Ok(replies.pop().map(|reply| reply.rows).unwrap_or_default())
    }

    /// Gives up the connection during a write that may still take effect, and reports it to be
    /// killed.
    pub fn give_up(&mut self) -> ConnectionId {
        self.discard();
        self.health.add_lost(self.id);
        self.id
    }

    /// Closes the connection instead of returning it to the pool.
    pub fn discard(&mut self) {
        self.is_usable = false;
    }
}

/// Converts the error of a guarded packet's first statement. `sql/connection/takes_writes.sql`
/// fails with 1690 on a read-only server. The result has the number with which such servers refuse
/// writes.
fn read_only(error: mysql::Error) -> mysql::Error {
    const OUT_OF_RANGE: u16 = 1690;
    const READ_ONLY: u16 = 1290;
    match error {
        mysql::Error::MySqlError(error) if error.code == OUT_OF_RANGE => {
            let message = "the server is read-only: it is a replica, or a failover is under way";
            let message = message.to_owned();
            mysql::Error::MySqlError(mysql::MySqlError { code: READ_ONLY, message, ..error })
        }
        error => error,
    }
}

/// Reads a row into a tuple.
pub fn columns<T: mysql::prelude::FromRow>(row: Row) -> mysql::Result<T> {
    mysql::from_row_opt(row).map_err(|FromRowError(row)| {
        let names: Vec<_> = row.columns_ref().iter().map(|c| c.name_str().into_owned()).collect();
        mysql::Error::from(std::io::Error::other(format!("unexpected columns: {names:?}")))
    })
}
