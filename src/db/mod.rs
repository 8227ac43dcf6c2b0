//! The way to the database: pooled connections, statements from `sql/`, several of them in one
//! packet, and what went wrong when one fails.

pub mod health;
pub mod table;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, FromRowError, Opts, OptsBuilder, Row};
use r2d2::ManageConnection;
use r2d2_mysql::MySqlConnectionManager;

use crate::db::health::{Identity, Outage};
use crate::metrics::METRICS;
use crate::sockets;

/// How long to wait for the database to accept a connection: beside the bot or in its data
/// centre, one that takes longer is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for a connection of the pool. The pool tries again after half of that at most.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for an answer where all there is to find out is whether there is one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for the database to end a connection that was lost in the middle of a write.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two looks at a connection that is being ended.
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// How long to wait for an answer: above the lock waits of `sql/connection/session.sql`, so that these end
/// in a clean error first, and far below the time a client would wait.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(3);

/// A statement from `sql/`, ready for its values.
///
/// Statements travel as text, so that several go in one packet and one round trip. Every value is
/// written as a number, in hexadecimal, or, if it has nothing but letters, digits and a few harmless
/// signs, in quotes: nothing that a caller sends can be read as SQL, whatever quoting the server's
/// mode prescribes.
#[derive(Clone, Debug)]
pub struct Statement(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Sql(String),
    Parameter(String),
    /// Written once for every row, with this in between; or only for those with this value.
    Each(String, Option<String>, Vec<Piece>),
}

/// A value in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text, compared by the collation of the column it meets.
    Text(&'a str),
    /// Bytes, compared as they are.
    Bytes(&'a [u8]),
    Number(u64),
    /// A number that may be negative.
    Signed(i64),
    List(&'a [Value<'a>]),
    /// Several that are compared together, in parentheses.
    Tuple(&'a [Value<'a>]),
    Null,
}

/// The values of a statement by the names of its parameters.
pub type Values<'a> = [(&'static str, Value<'a>)];

impl Statement {
    /// Reads a file of `sql/`: comments go, `{name}` becomes a quoted identifier, `:name` a
    /// place for a value. What is between `/*each X*/` and `/*end*/` is written once for every row
    /// of values, with X in between; after `/*each-with name*/` only for those whose `:name` is not
    /// NULL.
    pub fn new(file: &str, identifiers: &[(&str, &str)]) -> Self {
        let code = file.lines().filter(|line| !line.starts_with("--"));
        let sql = code.map(str::trim).collect::<Vec<_>>().join(" ");
        let mut pieces = Vec::new();
        let mut rest = sql.as_str();
        while let Some((before, after)) = rest.split_once("/*each") {
            pieces.extend(read_pieces(before, identifiers));
            let (separator, after) = after.split_once("*/").unwrap_or(("", after));
            let (each, after) = after.split_once("/*end*/").unwrap_or((after, ""));
            let needed = separator.strip_prefix("-with ").map(str::to_owned);
            let separator = if needed.is_some() { "" } else { separator };
            let each = read_pieces(each, identifiers);
            pieces.push(Piece::Each(separator.to_owned(), needed, each));
            rest = after;
        }
        pieces.extend(read_pieces(rest, identifiers));
        Self(pieces)
    }

    /// Appends the statement to a packet, with one row of values.
    ///
    /// # Panics
    /// If a parameter of the file is not among the values: a mistake of ours that every use of
    /// the statement would show.
    pub fn write(&self, packet: &mut Packet, values: &Values) {
        self.write_rows(packet, &[values]);
    }

    /// Appends the statement to a packet, with some rows of values. What is outside of the
    /// repeated parts is the first row's.
    ///
    /// # Panics
    /// As [`Statement::write`] does, or if there is no row.
    pub fn write_rows<'a>(&self, packet: &mut Packet, rows: &[impl AsRef<Values<'a>>]) {
        if packet.statements > 0 {
            packet.text.push(';');
        }
        packet.statements += 1;
        for piece in &self.0 {
            match piece {
                Piece::Each(separator, needed, pieces) => {
                    let has = |row: &Values, name: &String| {
                        row.iter().any(|(given, value)| given == name && *value != Value::Null)
                    };
                    let rows = rows.iter().map(AsRef::as_ref);
                    let rows = rows.filter(|row| needed.as_ref().is_none_or(|name| has(row, name)));
                    for (number, row) in rows.enumerate() {
                        if number > 0 {
                            packet.text.push_str(separator);
                        }
                        for piece in pieces {
                            piece.write(&mut packet.text, row);
                        }
                    }
                }
                piece => piece.write(&mut packet.text, rows[0].as_ref()),
            }
        }
    }
}

impl Piece {
    fn write(&self, text: &mut String, values: &Values) {
        match self {
            Self::Sql(sql) => text.push_str(sql),
            Self::Parameter(name) => {
                let value = values.iter().find(|(given, _)| given == name);
                let (_, value) = value.unwrap_or_else(|| panic!("no value for :{name}"));
                value.write(text);
            }
            Self::Each(..) => unreachable!("what is repeated does not repeat anything"),
        }
    }
}

fn read_pieces(sql: &str, identifiers: &[(&str, &str)]) -> Vec<Piece> {
    let named = |sql: &str| {
        identifiers.iter().fold(sql.to_owned(), |sql, (name, identifier)| {
            let quoted = format!("`{}`", identifier.replace('`', "``"));
            sql.replace(&format!("{{{name}}}"), &quoted)
        })
    };
    let mut pieces = Vec::new();
    let mut rest = sql;
    while let Some((before, after)) = split_at_parameter(rest) {
        pieces.push(Piece::Sql(named(before)));
        let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
        pieces.push(Piece::Parameter(after[..end].to_owned()));
        rest = &after[end..];
    }
    pieces.push(Piece::Sql(named(rest)));
    pieces
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

/// Splits at the first `:name`; the colons of a time format are followed by something else.
fn split_at_parameter(sql: &str) -> Option<(&str, &str)> {
    sql.match_indices(':')
        .map(|(at, _)| (&sql[..at], &sql[at + 1..]))
        .find(|(_, after)| after.starts_with(is_name))
}

impl Value<'_> {
    fn write(self, sql: &mut String) {
        match self {
            Self::Text(text) if is_plain(text.as_bytes()) => write_plain(sql, text),
            Self::Text(text) => {
                sql.push_str("_utf8mb4 ");
                write_hex(sql, text.as_bytes());
            }
            Self::Bytes(bytes) => match str::from_utf8(bytes) {
                Ok(text) if is_plain(bytes) => write_plain(sql, text),
                _ => write_hex(sql, bytes),
            },
            Self::Number(number) => sql.push_str(&number.to_string()),
            Self::Signed(number) => sql.push_str(&number.to_string()),
            Self::List(values) => {
                for (number, value) in values.iter().enumerate() {
                    if number > 0 {
                        sql.push(',');
                    }
                    value.write(sql);
                }
            }
            Self::Tuple(values) => {
                sql.push('(');
                Self::List(values).write(sql);
                sql.push(')');
            }
            Self::Null => sql.push_str("NULL"),
        }
    }
}

/// Whether it means the same in quotes, whatever the server's mode: most ids, and all leases.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b" -.:_@+".contains(byte))
}

fn write_plain(sql: &mut String, text: &str) {
    sql.push('\'');
    sql.push_str(text);
    sql.push('\'');
}

fn write_hex(sql: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    sql.push_str("x'");
    for byte in bytes {
        sql.push(char::from(DIGITS[usize::from(byte >> 4)]));
        sql.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    sql.push('\'');
}

/// Statements that go to the database in one round trip. At the first one that fails the database
/// leaves the rest undone.
#[derive(Debug, Default)]
pub struct Packet {
    text: String,
    statements: usize,
}

impl Packet {
    /// How many statements it has.
    pub fn len(&self) -> usize {
        self.statements
    }

    /// Appends a statement that has no values, `COMMIT` for instance.
    pub fn push(&mut self, sql: &str) {
        Statement::new(sql, &[]).write(self, &[]);
    }
}

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

/// What a failure means for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection is gone; whether the last statement took effect is unknown.
    Lost,
    /// The database undid the transaction to end a deadlock; the same again may well succeed.
    Deadlock,
    /// Another transaction held the row or table for longer than the lock wait.
    Locked,
    /// Some of the leases were not there to be released: `sql/lease/all_released.sql`.
    NotAllReleased,
    /// A text cannot be compared with the column's character set, so no row can have it.
    Incomparable,
    /// The database takes no writes at present: a replica, or a failover under way.
    ReadOnly,
    /// User, password or right: nothing that time mends.
    Denied,
    /// The database said no for another reason.
    Refused,
}

impl Trouble {
    /// Sorts an error by its number, as MySQL and MariaDB document them.
    pub fn of(error: &mysql::Error) -> Self {
        let mysql::Error::MySqlError(server) = error else {
            return Self::Lost;
        };
        match server.code {
            // Shutdown, network, in the middle of a COMMIT, interrupted, killed, idle too long.
            1053 | 1180 | 1152..=1161 | 1317 | 1927 | 2006 | 2013 | 3169 | 4031 => Self::Lost,
            1020 | 1213 => Self::Deadlock,
            1205 => Self::Locked,
            1690 => Self::NotAllReleased,
            1267 | 3854 => Self::Incomparable,
            1290 | 1792 | 1836 => Self::ReadOnly,
            1044 | 1045 | 1049 | 1142 | 1143 | 1227 | 1251 | 1698 | 1820 | 3118 | 4151 => {
                Self::Denied
            }
            _ => Self::Refused,
        }
    }

    /// The word in the metrics; none for what is no error but an answer.
    fn kind(self) -> Option<&'static str> {
        match self {
            Self::Lost => Some("lost"),
            Self::Deadlock => Some("deadlock"),
            Self::Locked => Some("locked"),
            Self::ReadOnly => Some("read_only"),
            Self::Denied => Some("denied"),
            Self::Refused => Some("refused"),
            Self::NotAllReleased | Self::Incomparable => None,
        }
    }
}

/// What went wrong, in the database's words.
pub fn cause(error: &mysql::Error) -> String {
    /// EAGAIN, which is how a socket says that its time ran out.
    const TIMED_OUT: &str = "(os error 11)";
    if Trouble::of(error) == Trouble::Locked {
        return "another program holds a database lock".to_owned();
    }
    let text = match error {
        mysql::Error::MySqlError(server) => server.to_string(),
        mysql::Error::IoError(io) => io.to_string(),
        mysql::Error::CodecError(codec) => codec.to_string(),
        mysql::Error::DriverError(driver) => driver.to_string(),
        other => other.to_string(),
    };
    if text.contains(TIMED_OUT) {
        return "no answer came in time".to_owned();
    }
    text
}

/// One connection to the database, with the settings of `sql/connection/session.sql`.
pub struct Connection {
    conn: Conn,
    opened: Instant,
    usable: Usable,
    server: u64,
    pub sysdate: Sysdate,
    outage: Arc<Outage>,
}

#[derive(PartialEq)]
enum Usable {
    Yes,
    No,
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
    /// How the database knows this connection.
    fn identity(&self) -> Identity {
        Identity { server: self.server, id: self.conn.connection_id(), opened: self.opened }
    }

    /// Whether the database has closed it while it was idle.
    fn is_closed(&self) -> bool {
        sockets::is_closed_by_peer(self.conn.as_raw_fd())
    }

    /// Runs the statements of a packet, one reply each. After an error that is not the database's
    /// own word, the connection is not used again.
    pub fn run(&mut self, packet: &Packet) -> Result<Vec<Reply>, PacketError> {
        let mut replies = Vec::with_capacity(packet.statements);
        let sent_at = Instant::now();
        self.collect(packet, &mut replies).map_err(|error| {
            let trouble = Trouble::of(&error);
            if let Some(kind) = trouble.kind() {
                METRICS.database_errors.with_label_values(&[kind]).inc();
            }
            if trouble == Trouble::Lost {
                self.discard();
                // Nothing came in time: the way there may be cut.
                if sent_at.elapsed() >= SOCKET_TIMEOUT {
                    self.outage.distrust();
                } else {
                    self.outage.doubt();
                }
            }
            PacketError {
                is_commit: packet.statements > 1 && replies.len() + 1 == packet.statements,
                error,
            }
        })?;
        Ok(replies)
    }

    fn collect(&mut self, packet: &Packet, replies: &mut Vec<Reply>) -> mysql::Result<()> {
        let mut result = self.conn.query_iter(&packet.text)?;
        while let Some(mut set) = result.iter() {
            let affected = set.affected_rows();
            let last_insert_id = set.last_insert_id().unwrap_or_default();
            let rows = set.by_ref().collect::<mysql::Result<_>>()?;
            replies.push(Reply { rows, affected, last_insert_id });
        }
        if replies.len() != packet.statements {
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

    /// Gives the connection up in the middle of a write, which may still take effect: its name,
    /// under which it is waited for until it cannot any more.
    pub fn lose(&mut self) -> Identity {
        let identity = self.identity();
        self.discard();
        self.outage.lost(identity);
        identity
    }

    /// Ends the connection instead of giving it back to the pool.
    pub fn discard(&mut self) {
        self.usable = Usable::No;
    }
}

/// Makes sure that a lost connection's last statement cannot take effect any more: a packet that
/// was delayed on its way could still be carried out after we looked. Whether it is so in time.
fn end_connection(
    connection: &mut Connection,
    lost: Identity,
    until: Instant,
) -> mysql::Result<bool> {
    /// No such thread; or another user's, who has got its number since.
    const GONE: [u16; 2] = [1094, 1095];
    if lost.server != connection.server {
        // It cannot do anything to this one, where its number is somebody else's.
        return Ok(true);
    }
    let uptime = Statement::new(include_str!("../../sql/connection/server_uptime.sql"), &[]);
    let uptime = connection.query(&uptime, &[])?.pop().map(columns);
    let uptime: Option<(String, u64)> = uptime.transpose()?;
    let age_s = lost.opened.elapsed().as_secs();
    if uptime.is_some_and(|(_, uptime_s)| uptime_s + 1 < age_s) {
        // It was to an earlier life of the server, and its number may be somebody else's now.
        return Ok(true);
    }
    let kill = Statement::new(include_str!("../../sql/connection/kill.sql"), &[]);
    loop {
        match connection.query(&kill, &[("id", Value::Number(lost.id.into()))]) {
            Err(mysql::Error::MySqlError(error)) if GONE.contains(&error.code) => return Ok(true),
            Err(error) => return Err(error),
            Ok(_) if Instant::now() > until => return Ok(false),
            Ok(_) => thread::sleep(KILL_PAUSE),
        }
    }
}

/// Reads a row into a tuple.
pub fn columns<T: mysql::prelude::FromRow>(row: Row) -> mysql::Result<T> {
    mysql::from_row_opt(row).map_err(|FromRowError(row)| {
        let names: Vec<_> = row.columns_ref().iter().map(|c| c.name_str().into_owned()).collect();
        mysql::Error::from(std::io::Error::other(format!("unexpected columns: {names:?}")))
    })
}

/// Opens connections. `r2d2_mysql`'s own manager asks the database whether a connection lives each
/// time one is given back to the pool; this one remembers whether it failed.
#[derive(Clone)]
pub struct Connections {
    manager: MySqlConnectionManager,
    outage: Arc<Outage>,
}

impl Connections {
    fn open(&self) -> mysql::Result<Connection> {
        let conn = self.manager.connect().inspect_err(|error| {
            if let Some(kind) = Trouble::of(error).kind() {
                METRICS.database_errors.with_label_values(&[kind]).inc();
            }
        })?;
        METRICS.connections_opened.inc();
        let opened = Instant::now();
        let mut connection = Connection {
            conn,
            opened,
            usable: Usable::Yes,
            server: 0,
            sysdate: Sysdate::AtTheCall,
            outage: Arc::clone(&self.outage),
        };
        let identity =
            Statement::new(include_str!("../../sql/connection/server_identity.sql"), &[]);
        let identity = connection.query(&identity, &[])?.pop().map(columns);
        let (server, is_live): (_, Option<bool>) = identity.transpose()?.unwrap_or((0, None));
        connection.server = server;
        if is_live == Some(false) {
            connection.sysdate = Sysdate::AtTheStart;
        }
        Ok(connection)
    }
}

impl ManageConnection for Connections {
    type Connection = Connection;
    type Error = mysql::Error;

    fn connect(&self) -> mysql::Result<Connection> {
        // The pool keeps trying meanwhile, and soon tries again.
        if let Some(cause) = self.outage.cause() {
            return Err(std::io::Error::other(cause).into());
        }
        let connection = self.open()?;
        match connection.sysdate {
            Sysdate::AtTheCall => Ok(connection),
            Sysdate::AtTheStart => Err(std::io::Error::other(SYSDATE_IS_NOW).into()),
        }
    }

    fn is_valid(&self, connection: &mut Connection) -> mysql::Result<()> {
        connection.conn.ping()
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.usable == Usable::No
    }
}

/// A connection that goes back to the pool when it is dropped.
pub type Pooled = r2d2::PooledConnection<Connections>;

/// The database: a pool of connections, all with the same settings.
pub struct Database {
    pool: r2d2::Pool<Connections>,
    connections: Connections,
    probes: Connections,
    outage: Arc<Outage>,
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
        let outage = Arc::new(Outage::default());
        let connections = |timeout| {
            let options = OptsBuilder::from_opts(url.clone())
                // Only with these does every call end; the crate's defaults wait for ever.
                .tcp_connect_timeout(Some(CONNECT_TIMEOUT.min(timeout)))
                .read_timeout(Some(timeout))
                .write_timeout(Some(timeout))
                // What the URL names is what is used: the crate would move from TCP on 127.0.0.1 to
                // the server's Unix socket, around a proxy.
                .prefer_socket(false)
                .init(vec!["SET NAMES utf8mb4".to_owned(), session.text.clone()]);
            Connections {
                manager: MySqlConnectionManager::new(options),
                outage: Arc::clone(&outage),
            }
        };
        let pool = r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(1))
            // A ping before each use would be a round trip more; a dead connection shows at the
            // first statement, which is a look and can simply be repeated.
            .test_on_check_out(false)
            .connection_timeout(POOL_TIMEOUT)
            // The cause reaches whoever waits for a connection; the log needs no second copy.
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(connections(SOCKET_TIMEOUT));
        Self {
            pool,
            connections: connections(SOCKET_TIMEOUT),
            probes: connections(PROBE_TIMEOUT),
            outage,
        }
    }

    /// What is known of whether it answers.
    pub fn outage(&self) -> &Outage {
        &self.outage
    }

    /// A connection of the pool. It may have died since it was last used, but not so that the database, or
    /// whatever is between, has said so: a release could not tell its own delete from somebody else's.
    pub fn pooled(&self) -> Result<Pooled, String> {
        loop {
            let mut pooled = self.pool.get().map_err(|error| {
                self.outage.doubt();
                error.to_string()
            })?;
            if pooled.opened >= self.outage.trusted_since() && !pooled.is_closed() {
                return Ok(pooled);
            }
            pooled.discard();
        }
    }

    /// A connection of its own, and the database's own word if there is none: the pool keeps
    /// trying, and then only says that time ran out.
    pub fn connect(&self) -> mysql::Result<Connection> {
        self.connections.open()
    }

    /// Waits for an outage, at most so long, and takes a step towards its end.
    pub fn tend(&self, patience: Duration) {
        self.outage.tend(
            patience,
            || self.reach().map_err(|error| cause(&error)),
            |connection, lost| match connection {
                Some(mut connection) => end_connections(&mut connection, lost),
                None => Vec::new(),
            },
        );
    }

    /// Finds out whether the database answers; a connection, if there is one to be had.
    fn reach(&self) -> mysql::Result<Option<Connection>> {
        match self.probes.open() {
            Ok(mut connection) => {
                connection.conn.ping()?;
                Ok(Some(connection))
            }
            // It answers, if only that it has no connection for us: those that we have may be good.
            Err(mysql::Error::MySqlError(_)) if self.pool.state().connections > 0 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Ends connections that were lost, as far as they can be ended in time: those that have ended.
fn end_connections(connection: &mut Connection, lost: &[Identity]) -> Vec<Identity> {
    let until = Instant::now() + KILL_PATIENCE;
    let mut ended = lost.to_vec();
    ended.retain(|lost| end_connection(connection, *lost, until).unwrap_or(false));
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_be_read_as_sql() {
        let statement = Statement::new(
            "-- a :comment\nSELECT :a, '%H:%i', :b FROM {t}\n  WHERE /*each OR*/ x = :a/*end*//*each-with b*/ AND b/*end*/",
            &[("t", "x`:y")],
        );
        let mut packet = Packet::default();
        let row = |a| [("a", Value::Text(a)), ("b", Value::Null)];
        statement.write_rows(&mut packet, &[row("'; :b"), row("")]);
        packet.push("COMMIT");
        assert_eq!(
            packet.text,
            "SELECT _utf8mb4 x'273b203a62', '%H:%i', NULL FROM `x``:y` WHERE  x = _utf8mb4 x'273b203a62' OR x = '';COMMIT"
        );
    }
}
