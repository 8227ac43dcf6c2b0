//! The lock table as a store of leases: a batch of operations in, a batch of answers out.
//!
//! Each operation is a packet of statements with their own guards: they name the session, the owner
//! token and the database's clock, never what an earlier request has read. The last statements read
//! the rows back in the same transaction, and these rows are the answer; or the answer is the
//! number of rows with the request's own token. A grant therefore never depends on the absence of
//! an error, and any packet can be sent again: with the same owner token it repeats nothing.
//!
//! | file | content |
//! |---|---|
//! | `operation` | operations, answers, errors |
//! | `attempt` | the state of one operation: its next packet, what an earlier one may have done |
//! | `packet` | operations as statements |
//! | `reply` | which rows and counts of a reply belong to which operation |
//! | `batch` | the loop: packets, retries, isolation of an operation that fails |
//! | `spelling` | which spellings of an id are one id |
//! | `retry` | what follows when a packet fails: a deadlock, a lock, a lost connection |
//! | `ids` | the ids of new rows |
//! | `scan` | pages of the table: list, watch, sweep |

mod attempt;
mod batch;
mod ids;
mod operation;
mod packet;
mod reply;
mod retry;
mod scan;
mod spelling;

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mysql::{Opts, Row};

use crate::db::{Database, ErrorKind, Packet, Pooled, Statement, Values, cause};
use crate::doctor::{self, Finding, Messages, Migrated, Report, Verdict, Writes};
use crate::lease::Session;
use crate::metrics::METRICS;

pub use batch::Locks;
pub use operation::{Answer, FirstPacket, Operation, StoreError};
use packet::Statements;
pub use scan::Page;
pub use spelling::SessionName;
use spelling::Spellings;

/// A batch sends no new packet after this. With the socket timeouts added, every operation ends
/// within 10 s, before a webhook's provider gives up.
const BATCH_TIMEOUT: Duration = Duration::from_secs(4);

/// Least time between two inspections of a message table that is missing or wrong.
const MESSAGES_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The result of [`Store::open`].
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
    /// A store that is not open yet, with at most `connections` connections in its pool.
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

    /// Inspects what changes slowly: some metrics, and the triggers and ids that acquires rely on.
    pub fn measure(&self) {
        if let Ok(report) = self.inspect() {
            METRICS.ids_used.set(report.ids_used.unwrap_or_default());
            METRICS.clock_difference.set(report.clock_difference_s.unwrap_or_default());
            if let (Some(statements), Some(table)) = (self.opened.get(), report.table) {
                statements.has_triggers.store(table.has_triggers, Ordering::Relaxed);
                statements.ids.keep_below(table.next_id);
            }
        }
    }

    /// Inspects everything that the guarantees depend on.
    pub fn inspect(&self) -> Result<Report, String> {
        let inspected = self.database.connect().and_then(|mut connection| {
            doctor::inspect(&mut connection, &self.table_name, self.configured_offset.as_deref())
        });
        inspected.or_else(|error| {
            let cause = cause(&error);
            if ErrorKind::of(&error) != ErrorKind::Denied {
                return Err(cause);
            }
            let text = format!("the database refuses this login ({cause}): check user, password, database and grants in DATABASE_URL");
            let finding = Finding { verdict: Verdict::Problem, topic: "login", text, sql: None };
            Ok(Report { findings: vec![finding], ..Report::default() })
        })
    }

    /// Creates the tables that are missing.
    pub fn migrate(&self) -> Result<Migrated, String> {
        let migrate = |mut connection| doctor::migrate(&mut connection, &self.table_name);
        self.database.connect().and_then(migrate).map_err(|error| cause(&error))
    }

    /// Opens the store if the database can be reached and its table is usable.
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
                if self.opened.get().is_none() {
                    let spellings = self
                        .database
                        .connect()
                        .and_then(|mut connection| Spellings::load(&mut connection, table));
                    match spellings {
                        Ok(spellings) => drop(self.opened.set(Statements::new(table, spellings))),
                        Err(error) => return Opened::NotYet(cause(&error)),
                    }
                }
                METRICS.database_up.set(1);
                Opened::Ready(report.of(Verdict::Warning).cloned().collect())
            }
        }
    }

    /// Whether messages can be recorded: the error says what is wrong with their table. A table
    /// that was wrong is inspected again, because it may have been repaired since.
    pub fn keeps_messages(&self) -> Result<(), String> {
        let mut inspected = self.messages();
        let Messages::Refused(why) = inspected.0.clone() else {
            // If the table has not been inspected yet, the request itself shows whether it is good.
            return Ok(());
        };
        if inspected.1.elapsed() < MESSAGES_RETRY_INTERVAL {
            return Err(why);
        }
        inspected.1 = Instant::now();
        drop(inspected);
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
        // No code that holds this lock can panic.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether leases can be written now.
    pub fn ready(&self) -> Result<(), StoreError> {
        let mut packet = Packet::default();
        self.statements()?.may_write.write(&mut packet, &[]);
        self.run_again(&packet).map(drop)
    }

    /// One name for all spellings of a session that the table's collations make equal. Asks the database
    /// if it must.
    ///
    /// # Errors
    /// If the database cannot be asked, or cannot store such an id.
    pub fn session_name(&self, session: &Session) -> Result<SessionName, StoreError> {
        let (prospect, device) = (session.id_prospect.as_str(), session.id_device.as_str());
        let Some(statements) = self.opened.get() else {
            // Before the store is open, every operation fails, so the name does not matter.
            return Ok((prospect.into(), device.into()));
        };
        if let Some(name) = statements.spellings.known_name(prospect, device) {
            return Ok(name);
        }
        let mut connection = self.pooled(Instant::now() + BATCH_TIMEOUT)?;
        statements.spellings.name(session, &mut connection)
    }

    /// Reads from a server that takes writes: any other may be a replica that lags.
    fn query(&self, sql: &Statement, values: &Values) -> Result<Vec<Row>, StoreError> {
        let mut packet = Packet::default();
        self.statements()?.may_write.write(&mut packet, &[]);
        sql.write(&mut packet, values);
        self.run_again(&packet)
    }

    /// Runs a packet that only reads, again if the connection is lost; returns the rows of its last
    /// statement.
    fn run_again(&self, packet: &Packet) -> Result<Vec<Row>, StoreError> {
        let until = Instant::now() + BATCH_TIMEOUT;
        loop {
            let mut connection = self.pooled(until)?;
            let error = match connection.run(packet) {
                Ok(mut replies) => return Ok(replies.pop().map_or(vec![], |reply| reply.rows)),
                Err(failed) => failed.error,
            };
            match ErrorKind::of(&error) {
                // The column cannot hold this text, so no row has it.
                ErrorKind::Incomparable => return Ok(Vec::new()),
                ErrorKind::ConnectionLost if Instant::now() < until => continue,
                // The next connection may reach another server.
                ErrorKind::ReadOnly => connection.discard(),
                _ => {}
            }
            return Err(error.into());
        }
    }

    fn pooled(&self, until: Instant) -> Result<Pooled, StoreError> {
        let up = self.database.health().wait_until_up(until);
        up.and_then(|()| self.database.pooled()).map_err(StoreError::Unavailable)
    }

    /// Waits at most `timeout` until a health check is due, and runs it.
    pub fn check_health(&self, timeout: Duration) {
        self.database.check_health(timeout);
    }

    fn statements(&self) -> Result<&Statements, StoreError> {
        self.opened.get().ok_or_else(|| {
            StoreError::Unavailable("it has not been reached since the start".to_owned())
        })
    }
}
