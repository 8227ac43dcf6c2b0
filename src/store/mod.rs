//! The lock table as a store of leases: a batch of operations in, a batch of answers out.
//!
//! Each operation is a few guarded statements: the guards name the session, the owner token and the
//! database's clock, never the result of an earlier request. The answer is what the same
//! transaction reads back after its writes, or the number of rows that its own statement changed. So
//! a grant never depends on the absence of an error. Any packet can be sent again: the guards let
//! nothing happen twice.
//!
//! | file | content |
//! |---|---|
//! | `operation` | operations, answers, errors |
//! | `attempt` | the state of one operation: its next packet, and the possible effect of an earlier one |
//! | `packet` | operations as statements |
//! | `reply` | which rows and counts of a reply belong to which operation |
//! | `batch` | the loop: packets, retries, isolation of an operation that fails |
//! | `spelling` | which spellings of an id are one id |
//! | `retry` | the handling of a failed packet: a deadlock, a lock, a lost connection |
//! | `inspection` | the state of the server and its tables, and the handling of changes |
//! | `ids` | the ids of new rows |
//! | `list` | pages of the table: list and watch |
//! | `sweep` | the deletion of rows of crashed holders and of old records |

mod attempt;
mod batch;
mod ids;
mod inspection;
mod list;
mod operation;
mod packet;
mod reply;
mod retry;
mod spelling;
mod sweep;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql::{Opts, Row as SqlRow};
use parking_lot::{Mutex, RwLock};

use crate::db::{Database, ErrorKind, Packet, Pooled, Statement, Values, cause};
use crate::doctor::{self, Migrated};
use crate::lease::Session;

pub use attempt::{Attempt, Sharing};
pub use batch::{BATCH_MAX, Locks};
use inspection::Inspection;
pub use inspection::Opened;
pub use operation::{Answer, FirstPacket, Operation, StoreError};
pub use packet::Statements;
pub use spelling::{SessionName, Spellings};
pub use sweep::{Swept, is_abandoned};

/// A batch sends no new packet after this. With the socket timeouts added, every operation ends
/// within 10 s, before a webhook's provider gives up.
const BATCH_TIMEOUT: Duration = Duration::from_secs(4);

/// The lock table behind a pool of connections.
pub struct Store {
    database: Database,
    table_name: String,
    configured_offset: Option<String>,
    opened: RwLock<Option<Arc<Statements>>>,
    inspection: Mutex<Inspection>,
}

impl Store {
    /// Creates a store that is not open yet, with at most `connections` connections in its pool.
    pub fn new(
        options: &Opts,
        table_name: &str,
        configured_offset: Option<&str>,
        connections: u32,
    ) -> Self {
        let time_zone = configured_offset.unwrap_or("+00:00");
        Self {
            database: Database::new(options, time_zone, connections),
            table_name: table_name.to_owned(),
            configured_offset: configured_offset.map(str::to_owned),
            opened: RwLock::default(),
            inspection: Mutex::default(),
        }
    }

    /// Creates the tables that are missing.
    pub fn migrate(&self) -> Result<Migrated, String> {
        let migrate = |mut connection| doctor::migrate(&mut connection, &self.table_name);
        self.database.connect().and_then(migrate).map_err(|error| cause(&error))
    }

    /// Whether leases can be written now.
    pub fn ready(&self) -> Result<(), StoreError> {
        self.query(&self.statements()?.may_write, &[]).map(drop)
    }

    /// The name of a session, which is the same for all spellings that the table's collations make
    /// equal. Asks the database if the name is not known.
    ///
    /// # Errors
    /// If the database cannot be asked, or cannot store such an id.
    pub fn session_name(&self, session: &Session) -> Result<SessionName, StoreError> {
        let (prospect, device) = (session.id_prospect.as_str(), session.id_device.as_str());
        let Some(statements) = self.opened() else {
            // Before the store is open, every operation fails, so the name does not matter.
            return Ok((prospect.into(), device.into()));
        };
        if let Some(name) = statements.spellings.known_name(prospect, device) {
            return Ok(name);
        }
        let mut connection = self.pooled(Instant::now() + BATCH_TIMEOUT)?;
        statements.spellings.name(session, &mut connection)
    }

    /// Reads from a server that accepts writes. Reads again if the connection is lost.
    fn query(&self, sql: &Statement, values: &Values) -> Result<Vec<SqlRow>, StoreError> {
        let mut packet = Packet::for_writable_server();
        sql.write(&mut packet, values);
        let until = Instant::now() + BATCH_TIMEOUT;
        let mut is_inspected = false;
        loop {
            let mut connection = self.pooled(until)?;
            let error = match connection.run(&packet) {
                Ok(mut replies) => return Ok(replies.pop().map_or(vec![], |reply| reply.rows)),
                Err(failed) => failed.error,
            };
            match ErrorKind::of(&error) {
                // The column cannot hold this text, so no row has it.
                ErrorKind::Incomparable => return Ok(Vec::new()),
                ErrorKind::ConnectionLost if Instant::now() < until => continue,
                kind if kind.needs_verifying() && !is_inspected => {
                    is_inspected = true;
                    self.suspect(kind);
                    continue;
                }
                _ => {}
            }
            return Err(error.into());
        }
    }

    fn pooled(&self, until: Instant) -> Result<Pooled, StoreError> {
        let up = self.database.health().wait_until_up(until);
        up.and_then(|()| self.database.pooled()).map_err(StoreError::Unavailable)
    }

    /// Has the health thread inspect the tables if one of them may be the cause. Requests wait for
    /// the result. (The connection has already reported a read-only server.)
    fn suspect(&self, kind: ErrorKind) {
        if kind.is_about_table() {
            self.suspect_tables();
        }
    }

    fn opened(&self) -> Option<Arc<Statements>> {
        self.opened.read().clone()
    }

    fn statements(&self) -> Result<Arc<Statements>, StoreError> {
        self.opened().ok_or_else(|| {
            StoreError::Unavailable("it has not been reached since the start".to_owned())
        })
    }
}
