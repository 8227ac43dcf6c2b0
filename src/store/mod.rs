//! The lock table as a store of leases: a batch of operations in, a batch of answers out.
//!
//! Each operation is a packet of statements that carry their own guards: they name the session, the
//! owner token and the database's clock, never what an earlier request saw. The last statements read
//! the rows back, in the same transaction, and what was read is the answer; or it is the count of rows
//! that carried the request's own token. So a grant never rests on the absence of an error, and any packet
//! may be sent again: with the same owner token it does nothing that it has done already.
//!
//! | file | what it is |
//! |---|---|
//! | `operation` | one operation and its answer |
//! | `attempt` | the state of one operation: its next packet, and whether an earlier one may have taken effect |
//! | `packet` | operations as statements |
//! | `reply` | which of the rows and counts that came back are whose |
//! | `batch` | the loop: packets, retries, isolation of the one that fails |
//! | `ids` | the ids of new rows |
//! | `scan` | pages of the table: list, watch, sweep |

mod attempt;
mod batch;
mod ids;
mod operation;
mod packet;
mod reply;
mod scan;

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mysql::{Opts, Row};

use crate::db::{Database, ErrorKind, Packet, Pooled, Statement, Values, cause};
use crate::doctor::{self, Finding, Messages, Report, Verdict, Writes};
use crate::lease::Session;
use crate::metrics::METRICS;

pub use operation::{Answer, FirstPacket, Operation, StoreError};
use packet::Statements;
pub use scan::Page;

/// No new packet is sent after this. With the socket's own timeouts on top, every operation ends
/// within 10 s, before a webhook's provider gives up.
const BATCH_TIMEOUT: Duration = Duration::from_secs(4);

/// A message table that was missing is inspected again after this, when somebody needs it.
const MESSAGES_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What came of an attempt to open the store.
#[derive(Debug)]
pub enum Opened {
    Ready(Vec<Finding>),
    NotYet(String),
    Unusable(Vec<Finding>),
}

/// The lock table behind a pool of connections.
pub struct Store {
    database: Database,
    table_name: String,
    configured_offset: Option<String>,
    opened: OnceLock<Statements>,
    messages: Mutex<(Messages, Instant)>,
}

impl Store {
    /// A store that is not open yet, with at most `connections` connections.
    pub fn new(
        url: &Opts,
        table_name: &str,
        configured_offset: Option<&str>,
        connections: u32,
    ) -> Self {
        let time_zone = configured_offset.unwrap_or("+00:00");
        Self {
            database: Database::new(url, time_zone, connections),
            table_name: table_name.to_owned(),
            configured_offset: configured_offset.map(str::to_owned),
            opened: OnceLock::new(),
            messages: Mutex::new((Messages::default(), Instant::now())),
        }
    }

    /// Inspects what changes slowly: the metrics show it, and acquires depend on triggers and ids.
    pub fn measure(&self) {
        if let Ok(report) = self.inspect() {
            METRICS.ids_used.set(report.ids_used.unwrap_or_default());
            METRICS.clock_difference.set(report.clock_difference_s.unwrap_or_default());
            if let (Some(statements), Some(table)) = (self.opened.get(), report.table) {
                let has_triggers = &statements.has_triggers;
                has_triggers.store(table.has_triggers, Ordering::Relaxed);
                statements.ids.keep_above(table.next_id);
            }
        }
    }

    /// Inspects everything that the promises depend on.
    pub fn inspect(&self) -> Result<Report, String> {
        let inspected = self.database.connect().and_then(|mut connection| {
            doctor::inspect(&mut connection, &self.table_name, self.configured_offset.as_deref())
        });
        inspected.or_else(|error| {
            if ErrorKind::of(&error) != ErrorKind::Denied {
                return Err(cause(&error));
            }
            let said = cause(&error);
            let text = format!("the database refuses this login ({said}): check user, password, database and grants in DATABASE_URL");
            let finding = Finding { verdict: Verdict::Problem, topic: "login", text, sql: None };
            Ok(Report { findings: vec![finding], ..Report::default() })
        })
    }

    /// Creates what is missing in the database.
    pub fn migrate(&self) -> Result<(), String> {
        let migrate = |mut connection| doctor::migrate(&mut connection, &self.table_name);
        self.database.connect().and_then(migrate).map_err(|error| cause(&error))
    }

    /// Opens the store, if the database is there and its table is usable.
    pub fn open(&self) -> Opened {
        let report = match self.inspect() {
            Ok(report) => report,
            Err(cause) => {
                return Opened::NotYet(format!("the database cannot be reached: {cause}"));
            }
        };
        match &report.table {
            None => Opened::Unusable(report.of(Verdict::Problem).cloned().collect()),
            Some(_) if report.writes == Writes::ReadOnly => {
                Opened::NotYet("the database is read-only".to_owned())
            }
            Some(table) => {
                *self.messages() = (report.messages.clone(), Instant::now());
                self.opened.get_or_init(|| Statements::new(table));
                METRICS.database_up.set(1);
                Opened::Ready(report.of(Verdict::Warning).cloned().collect())
            }
        }
    }

    /// Whether messages can be recorded: whether their table is as it must be. One that was not may
    /// have been mended since.
    pub fn keeps_messages(&self) -> Result<(), String> {
        let mut known = self.messages();
        let Messages::Refused(why) = known.0.clone() else {
            // What is not known yet, the request itself will show.
            return Ok(());
        };
        if known.1.elapsed() < MESSAGES_RETRY_INTERVAL {
            return Err(why);
        }
        known.1 = Instant::now();
        drop(known);
        let inspect = |statements: &Statements| {
            let mut connection = self.database.connect()?;
            doctor::inspect_messages(&mut connection, &statements.table)
        };
        let Some(Ok(messages)) = self.opened.get().map(inspect) else {
            return Err(why);
        };
        self.messages().0 = messages.clone();
        match messages {
            Messages::Refused(why) => Err(why),
            Messages::Kept | Messages::Unknown => Ok(()),
        }
    }

    fn messages(&self) -> MutexGuard<'_, (Messages, Instant)> {
        // Nothing that could panic happens under it.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether leases could be written now.
    pub fn ready(&self) -> Result<(), StoreError> {
        let mut packet = Packet::default();
        self.statements()?.may_write.write(&mut packet, &[]);
        self.run_again(&packet).map(drop)
    }

    /// One name for all spellings of a session that the table takes for the same.
    pub fn name(&self, session: &Session) -> (String, String) {
        let (prospect, device) = (session.id_prospect.as_str(), session.id_device.as_str());
        // Before the store is open, no operation succeeds, so any name will do.
        self.opened.get().map_or_else(
            || (prospect.to_owned(), device.to_owned()),
            |statements| statements.table.name(prospect, device),
        )
    }

    /// Reads from a server that takes writes: any other may be a replica that lags behind.
    fn query(&self, sql: &Statement, values: &Values) -> Result<Vec<Row>, StoreError> {
        let mut packet = Packet::default();
        self.statements()?.may_write.write(&mut packet, &[]);
        sql.write(&mut packet, values);
        self.run_again(&packet)
    }

    /// Runs a packet that only reads, again if the connection turns out to be dead; the rows of its last
    /// statement.
    fn run_again(&self, packet: &Packet) -> Result<Vec<Row>, StoreError> {
        let until = Instant::now() + BATCH_TIMEOUT;
        loop {
            let mut connection = self.pooled(until)?;
            let error = match connection.run(packet) {
                Ok(mut replies) => {
                    return Ok(replies.pop().map(|reply| reply.rows).unwrap_or_default());
                }
                Err(failed) => failed.error,
            };
            match ErrorKind::of(&error) {
                // No row can have a text that its column cannot hold.
                ErrorKind::Incomparable => return Ok(Vec::new()),
                ErrorKind::ConnectionLost if Instant::now() < until => continue,
                // The next connection may reach another server.
                ErrorKind::ReadOnly => connection.discard(),
                _ => {}
            }
            return Err(StoreError::Unavailable(cause(&error)));
        }
    }

    fn pooled(&self, until: Instant) -> Result<Pooled, StoreError> {
        let up = self.database.health().wait_until_up(until);
        up.and_then(|()| self.database.pooled()).map_err(StoreError::Unavailable)
    }

    /// Which of these sessions' rows another program holds a lock on, found out without waiting for it.
    /// None if that cannot be found out: the operations themselves show it then.
    pub fn locked(&self, sessions: &[&Session]) -> Vec<bool> {
        let connection = self.pooled(Instant::now());
        match (self.statements(), connection) {
            (Ok(statements), Ok(mut connection)) => {
                statements.locked(&mut connection, sessions.iter().copied())
            }
            _ => vec![false; sessions.len()],
        }
    }

    /// Waits until a health check is due, at most `timeout`, and makes it.
    pub fn check_health(&self, timeout: Duration) {
        self.database.check_health(timeout);
    }

    fn statements(&self) -> Result<&Statements, StoreError> {
        let not_yet =
            || StoreError::Unavailable("it has not been reached since the start".to_owned());
        self.opened.get().ok_or_else(not_yet)
    }
}
