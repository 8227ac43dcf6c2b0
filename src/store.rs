//! The lock table as a store of leases: a batch of operations in, a batch of answers out.
//!
//! Every operation is the same short loop, whatever happens around it:
//!
//! 1. look at the session's row;
//! 2. decide: what was seen either is the answer, or names a write;
//! 3. write, as a compare-and-swap on what was seen, and look again in the same transaction;
//! 4. decide again, from what was seen there.
//!
//! So an answer always rests on a row that was read, never on a count of rows or on the absence of
//! an error. A write that lost its race, a deadlock, a connection that died: all lead back to
//! looking.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use mysql::{Opts, Row};

use crate::database::{
    Connection, Database, Identity, Packet, PacketError, Pooled, Reply, Statement, Trouble, Value,
    cause, columns,
};
use crate::lease::{
    Acquired, FencingToken, Forced, HOLD_MS, Holder, Holding, How, Id, Lease, OwnerToken, Released,
    Renewed, RowVersion, Session, Stamp, Ttl,
};
use crate::table::{self, Finding, Report, Table, Verdict, Writes};

/// No new packet is sent after this. With the socket's own time-outs on top, every operation ends
/// within 10 s, before a webhook's provider gives up.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long to wait for the database to end a connection that was lost in the middle of a write.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two looks at a connection that is being ended.
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// Rows that one page of the table is read in, in the background or for one device: a millisecond
/// or two of the database's time.
const SCAN_ROWS: u64 = 1_000;

/// Rows that are watched with one statement.
const WATCH_ROWS: usize = 1_000;

/// A crashed holder's row is left for so long after its expiry: until then, the next acquire finds
/// it and says `takeover`, which tells the bot that a worker died.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// So many of them among the lowest ids, which are one in so many.
const LOW_ID_TRIES: u32 = 8;
const LOW_IDS_SHARE: u64 = 1_000;

/// Added to an expiry before its fraction is cut off, so that a lease never ends early.
const ROUND_UP_US: i64 = 999_999;

/// Random ids that are tried when the table has none left to give: enough to find one free of a
/// table that is nine tenths full.
const ID_TRIES: u32 = 20;

/// Something to do to one session's lease.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Take the lease.
    Acquire {
        /// Of this session.
        session: Session,
        /// For the worker that knows this token.
        owner_token: OwnerToken,
        /// For this long.
        ttl: Ttl,
    },
    /// See whether this worker has the lease already.
    Recall {
        /// Of this session.
        session: Session,
        /// The worker that knows this token.
        owner_token: OwnerToken,
        /// What it would ask for.
        ttl: Ttl,
    },
    /// Give the lease back.
    Release {
        /// Of this session.
        session: Session,
        /// By the worker that knows this token.
        owner_token: OwnerToken,
    },
    /// Give the lease a new expiry.
    Renew {
        /// Of this session.
        session: Session,
        /// By the worker that knows this token.
        owner_token: OwnerToken,
        /// From now on.
        ttl: Ttl,
        /// But never so that the lease is held for longer than this since its grant.
        max_hold_ms: u64,
    },
    /// End the lease without being its owner: an operator's release.
    Force {
        /// Of this session.
        session: Session,
        /// Only this lease, if it is named.
        fencing_token: Option<FencingToken>,
    },
    /// Look who holds it.
    Look {
        /// This session.
        session: Session,
    },
}

impl Operation {
    /// The session it is about.
    #[must_use]
    pub fn session(&self) -> &Session {
        match self {
            Self::Acquire { session, .. }
            | Self::Recall { session, .. }
            | Self::Release { session, .. }
            | Self::Renew { session, .. }
            | Self::Force { session, .. }
            | Self::Look { session } => session,
        }
    }
}

/// What came of an [`Operation`] of the same name.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of an acquire.
    Acquire(Acquired),
    /// Of a recall: the lease, if the worker has it.
    Recall(Option<Lease>),
    /// Of a release.
    Release(Released),
    /// Of a renew.
    Renew(Renewed),
    /// Of a forced release.
    Force(Forced),
    /// Of a look: who holds the session, if anybody does.
    Look(Option<Holding>),
}

/// Why there is no answer. None of these says anything about who holds what.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// The database cannot be reached, or refused; nothing was written.
    Unavailable(String),
    /// Another program held a lock on the row or the table for longer than we wait; nothing was
    /// written.
    Locked,
    /// The table has no AUTO_INCREMENT id left, and no free one was found.
    IdsExhausted,
    /// The database vanished in the middle of a write and could not be asked what became of it.
    Unsettled(String),
    /// A bug of ours.
    Internal,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(cause) => write!(f, "the database is not available ({cause}); nothing was written, try again"),
            Self::Locked => f.write_str(
                "another program holds a database lock on this session's row or on the table; nothing was written, try again",
            ),
            Self::Internal => f.write_str("a bug in session-lock; its log has a line about it"),
            Self::IdsExhausted => f.write_str(
                "the lock table has no AUTO_INCREMENT id left; nothing was written; the operator can run \
                 ALTER TABLE ... AUTO_INCREMENT = 1 while the table is nearly empty",
            ),
            Self::Unsettled(cause) => write!(
                f,
                "the database vanished during the write ({cause}); repeat the same request with the same owner_token"
            ),
        }
    }
}

/// What came of an attempt to open the store.
#[derive(Debug)]
pub enum Opened {
    /// It serves; these findings are worth a word.
    Ready(Vec<Finding>),
    /// Not yet, and why; worth another try.
    NotYet(String),
    /// It cannot serve until somebody mends these.
    Unusable(Vec<Finding>),
}

/// Some of the leases that hold now, in the order of their rows.
#[derive(Debug)]
pub struct Page {
    /// The sessions as they are stored, and who holds them.
    pub holdings: Vec<(Session, Holding)>,
    /// Where the next page begins; there is none without.
    pub next: Option<u64>,
}

/// What a sweep did.
#[derive(Debug)]
pub struct Swept {
    /// How many rows it deleted.
    pub rows: u64,
    /// Where the next page begins; there is none without.
    pub next: Option<u64>,
}

/// The lock table behind a pool of connections.
pub struct Store {
    database: Database,
    table_name: String,
    configured_offset: Option<String>,
    opened: OnceLock<Statements>,
}

/// The statements of the hot path, with the table's and its key's names in them.
struct Statements {
    look: Statement,
    acquire: Statement,
    stamp: Statement,
    release: Statement,
    renew_lock: Statement,
    renew: Statement,
    list: Statement,
    watch: Statement,
    may_delete: Statement,
    table: Table,
}

impl Statements {
    fn new(table: &Table) -> Self {
        let names = [("table", table.name.as_str()), ("key", table.key.as_str())];
        Self {
            look: Statement::new(include_str!("../sql/look.sql"), &names),
            acquire: Statement::new(include_str!("../sql/acquire.sql"), &names),
            stamp: Statement::new(include_str!("../sql/stamp.sql"), &names),
            release: Statement::new(include_str!("../sql/release.sql"), &names),
            renew_lock: Statement::new(include_str!("../sql/renew_lock.sql"), &names),
            renew: Statement::new(include_str!("../sql/renew.sql"), &names),
            list: Statement::new(include_str!("../sql/list.sql"), &names),
            watch: Statement::new(include_str!("../sql/watch.sql"), &names),
            may_delete: Statement::new(include_str!("../sql/may_delete.sql"), &names),
            table: table.clone(),
        }
    }
}

/// One session's row at one look.
struct Seen {
    key: u64,
    stored: Vec<u8>,
    stamp: Stamp,
    /// Time until its expiry by the database's clock: negative when past, `None` for what is no date.
    remaining_us: Option<i64>,
    clock_us: u64,
}

/// A row of the table's list.
struct ListedRow {
    session: Session,
    is_meant: bool,
    seen: Seen,
}

impl ListedRow {
    fn read(row: Row) -> mysql::Result<Self> {
        let (key, stored, age_us, clock_us, id_prospect, id_device, is_meant) = columns(row)?;
        let session = Session {
            id_device: Id::stored(id_device),
            id_prospect: Id::stored(id_prospect),
        };
        let seen = Seen::new(key, stored, age_us, clock_us);
        Ok(Self {
            session,
            is_meant,
            seen,
        })
    }
}

impl Seen {
    fn read(row: Row) -> mysql::Result<Self> {
        let (key, stored, age_us, clock_us) = columns(row)?;
        Ok(Self::new(key, stored, age_us, clock_us))
    }

    fn new(key: u64, stored: Vec<u8>, age_us: Option<i64>, clock_us: u64) -> Self {
        let hold_us = i64::try_from(HOLD_MS * 1_000).expect("30 s fit");
        let stamp = Stamp::parse(&stored);
        let remaining_us = age_us.map(|age_us| hold_us.saturating_sub(age_us));
        Self {
            key,
            stored,
            stamp,
            remaining_us,
            clock_us,
        }
    }

    /// Whether a crashed holder left it, so long ago that nobody is told of a takeover any more.
    fn is_forgotten(&self) -> bool {
        let past_us = self
            .remaining_us
            .and_then(|left_us| u64::try_from(-left_us).ok());
        matches!(self.stamp, Stamp::Lease { .. })
            && past_us.is_some_and(|past_us| Duration::from_micros(past_us) > FORGOTTEN_AFTER)
    }

    /// Time until its expiry; `None` once it is stale.
    fn remaining(&self) -> Option<Duration> {
        let left_us = self
            .remaining_us
            .and_then(|left_us| u64::try_from(left_us).ok());
        left_us
            .filter(|left_us| *left_us > 0)
            .map(Duration::from_micros)
    }

    fn holder(&self) -> Holder {
        match self.stamp {
            Stamp::Lease { fencing_token, .. } => {
                let held_ms = self.clock_us.saturating_sub(fencing_token.0) / 1_000;
                Holder::Leased {
                    fencing_token,
                    held_ms,
                }
            }
            Stamp::Foreign => Holder::Legacy,
        }
    }

    /// Who holds the session, if the row does; `looked_at` is when the look was sent.
    fn holding(&self, looked_at: Instant) -> Option<Holding> {
        let remaining = self.remaining()?;
        Some(Holding {
            expires: looked_at + remaining,
            holder: self.holder(),
            row: RowVersion::new(self.key, &self.stored),
        })
    }

    /// The lease in the row, for its owner's eyes.
    fn lease(&self, how: How, ttl: Ttl, looked_at: Instant) -> Option<Lease> {
        let Holding { expires, row, .. } = self.holding(looked_at)?;
        match self.stamp.clone() {
            Stamp::Lease {
                fencing_token,
                owner_token,
            } => Some(Lease {
                owner_token,
                fencing_token,
                how,
                ttl,
                expires,
                row,
            }),
            Stamp::Foreign => None,
        }
    }

    fn is_owned_by(&self, token: &OwnerToken) -> bool {
        matches!(&self.stamp, Stamp::Lease { owner_token, .. } if owner_token == token)
    }
}

/// A write that a look calls for.
enum Write {
    Acquire {
        lease: Wanted,
        key: Key,
        seen: Option<Vec<u8>>,
        fencing_floor: u64,
        how: How,
    },
    Renew {
        lease: Wanted,
        key: u64,
        seen: Vec<u8>,
        fencing_token: FencingToken,
        expires_us: u64,
        max_hold_ms: u64,
    },
    Delete {
        key: u64,
        seen: Vec<u8>,
        holder: Holder,
    },
}

/// The lease that an acquire asks for.
#[derive(Clone)]
struct Wanted {
    owner_token: OwnerToken,
    ttl: Ttl,
}

/// The id of the row that an acquire writes.
#[derive(Clone, Copy)]
enum Key {
    /// The next one of the table's counter.
    Next,
    /// This one: the row's that it replaces, or a random one when the counter is exhausted.
    Explicit(u64),
}

/// What became of the last write.
#[derive(Clone, Copy)]
enum Sent {
    Nothing,
    /// It was committed, and changed the row.
    Done(Effect),
    /// It was committed, and changed nothing: the row was not what had been seen.
    Void,
    /// The connection died under it.
    Unknown(Effect),
}

/// What a write does if it takes effect.
#[derive(Clone, Copy)]
enum Effect {
    Granted(How),
    Renewed,
    Ended(Holder),
}

/// One operation on its way to its answer.
struct Task<'a> {
    operation: &'a Operation,
    write: Option<Write>,
    sent: Sent,
    /// When the last write was sent.
    sent_at: Instant,
    /// The id that an acquire writes if the session has no row.
    new_key: Key,
    ids_tried: u32,
    outcome: Option<Result<Answer, StoreError>>,
}

/// Why a round ended before every task had its answer.
enum Interrupted {
    /// Worth looking again.
    Again(String),
    /// The same would happen again.
    Refused(String),
}

impl Store {
    /// A store that is not open yet, with at most `connections` connections.
    #[must_use]
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
        }
    }

    /// Looks at everything that the promises rest on.
    ///
    /// # Errors
    /// If the database cannot be reached; a refused login is a finding.
    pub fn inspect(&self) -> Result<Report, String> {
        let inspected = self.database.connect().and_then(|mut connection| {
            table::inspect(
                &mut connection,
                &self.table_name,
                self.configured_offset.as_deref(),
            )
        });
        inspected.or_else(|error| {
            if Trouble::of(&error) != Trouble::Denied {
                return Err(cause(&error));
            }
            let said = cause(&error);
            let text = format!("the database refuses this login ({said}): check user, password, database and grants in DATABASE_URL");
            let finding = Finding { verdict: Verdict::Problem, topic: "login", text };
            Ok(Report { findings: vec![finding], table: None, writes: Writes::Accepted })
        })
    }

    /// Creates what is missing in the database.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn migrate(&self) -> Result<(), String> {
        let migrate = |mut connection| table::migrate(&mut connection, &self.table_name);
        self.database
            .connect()
            .and_then(migrate)
            .map_err(|error| cause(&error))
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
                self.opened.get_or_init(|| Statements::new(table));
                Opened::Ready(report.of(Verdict::Warning).cloned().collect())
            }
        }
    }

    /// Whether leases could be written now.
    ///
    /// # Errors
    /// What is in the way.
    pub fn ready(&self) -> Result<(), StoreError> {
        self.query(&self.statements()?.may_delete, &[]).map(drop)
    }

    /// One name for all spellings of a session that the table takes for the same.
    #[must_use]
    pub fn name(&self, session: &Session) -> (String, String) {
        let (device, prospect) = (session.id_device.as_str(), session.id_prospect.as_str());
        // Before the store is open, no operation succeeds, so any name will do.
        self.opened.get().map_or_else(
            || (device.to_owned(), prospect.to_owned()),
            |Statements { table, .. }| {
                (
                    table.device_case.fold(device),
                    table.prospect_case.fold(prospect),
                )
            },
        )
    }

    /// A page of the leases that hold now, those of one device if it is named.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn list(&self, device: Option<&Id>, after: u64, limit: u64) -> Result<Page, StoreError> {
        let mut page = Page {
            holdings: Vec::new(),
            next: None,
        };
        // Of one device's rows, a page of this size may have none.
        let rows = if device.is_some() {
            SCAN_ROWS.max(limit)
        } else {
            limit
        };
        let device = device.map_or(Value::Null, |id| Value::Text(id.as_str()));
        let values = [
            ("id_device", device),
            ("after", Value::Number(after)),
            // One more, to see whether the table goes on.
            ("limit", Value::Number(rows + 1)),
        ];
        let looked_at = Instant::now();
        let mut found = self.query(&self.statements()?.list, &values)?;
        let goes_on = found.len() as u64 > rows;
        found.truncate(usize::try_from(rows).unwrap_or(usize::MAX));
        let mut found = found.into_iter();
        for row in found.by_ref() {
            let row =
                ListedRow::read(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
            page.next = Some(row.seen.key);
            if let (true, Some(holding)) = (row.is_meant, row.seen.holding(looked_at)) {
                page.holdings.push((row.session, holding));
                if page.holdings.len() as u64 == limit {
                    break;
                }
            }
        }
        if !goes_on && found.len() == 0 {
            page.next = None;
        }
        Ok(page)
    }

    /// Which of these rows are not as they were seen any more.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn changed(&self, rows: &[RowVersion]) -> Result<Vec<RowVersion>, StoreError> {
        let watch = &self.statements()?.watch;
        let mut changed = Vec::new();
        for rows in rows.chunks(WATCH_ROWS) {
            let keys: Vec<_> = rows.iter().map(|row| row.key).collect();
            let mut unchanged = HashSet::new();
            for row in self.query(watch, &[("keys", Value::Numbers(&keys))])? {
                let (key, stored): (u64, Vec<u8>) =
                    columns(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
                unchanged.insert(RowVersion::new(key, &stored));
            }
            changed.extend(rows.iter().filter(|row| !unchanged.contains(row)));
        }
        Ok(changed)
    }

    /// Deletes the rows of crashed holders behind `after` that expired long enough ago, one page
    /// of the table at a time; how many went, and where the next page begins.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn sweep(&self, after: u64) -> Result<Swept, StoreError> {
        let statements = self.statements()?;
        let values = [
            ("id_device", Value::Null),
            ("after", Value::Number(after)),
            ("limit", Value::Number(SCAN_ROWS)),
        ];
        let found = self.query(&statements.list, &values)?;
        let is_full = found.len() as u64 == SCAN_ROWS;
        let mut swept = Swept {
            rows: 0,
            next: None,
        };
        for row in found {
            let ListedRow { seen, session, .. } =
                ListedRow::read(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
            swept.next = Some(seen.key);
            if seen.is_forgotten() {
                // One at a time, so that it is in nobody's way.
                let mut packet = Packet::default();
                let holder = seen.holder();
                let delete = Write::Delete {
                    key: seen.key,
                    seen: seen.stored,
                    holder,
                };
                delete.append(&session, statements, &mut packet);
                // One that somebody holds a lock on is for the next sweep.
                let deleted = self.pooled()?.run(&packet).unwrap_or_default();
                swept.rows += deleted.iter().map(|reply| reply.affected).sum::<u64>();
            }
        }
        if !is_full {
            swept.next = None;
        }
        Ok(swept)
    }

    /// Runs a statement that reads, again if the connection turns out to be dead.
    fn query(&self, sql: &Statement, values: &[(&str, Value)]) -> Result<Vec<Row>, StoreError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.pooled()?.query(sql, values) {
                Ok(rows) => return Ok(rows),
                // No row can have a text that its column cannot hold.
                Err(error) if Trouble::of(&error) == Trouble::Incomparable => return Ok(Vec::new()),
                Err(error) if Trouble::of(&error) == Trouble::Lost && Instant::now() < until => {}
                Err(error) => return Err(StoreError::Unavailable(cause(&error))),
            }
        }
    }

    fn pooled(&self) -> Result<Pooled, StoreError> {
        let pooled = self.database.pooled();
        pooled.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    fn statements(&self) -> Result<&Statements, StoreError> {
        let not_yet =
            || StoreError::Unavailable("it has not been reached since the start".to_owned());
        self.opened.get().ok_or_else(not_yet)
    }

    /// Runs the operations, in one transaction as long as nothing gets in their way, and answers
    /// each in its place.
    #[must_use]
    pub fn run(&self, operations: &[Operation]) -> Vec<Result<Answer, StoreError>> {
        let statements = match self.statements() {
            Ok(statements) => statements,
            Err(error) => return operations.iter().map(|_| Err(error.clone())).collect(),
        };
        let started = Instant::now();
        let until = started + PATIENCE;
        let mut tasks: Vec<_> = operations
            .iter()
            .map(|operation| Task::new(operation, started))
            .collect();
        let mut lost_connection = None;
        let mut refusal = None;
        let mut last_cause = String::new();
        while tasks.iter().any(Task::is_open) && refusal.is_none() && Instant::now() < until {
            match self.round(statements, &mut tasks, &mut lost_connection, until) {
                Ok(()) => {}
                Err(Interrupted::Again(cause)) => last_cause = cause,
                Err(Interrupted::Refused(cause)) => refusal = Some(cause),
            }
        }
        let cause = refusal.unwrap_or(last_cause);
        tasks.into_iter().map(|task| task.finish(&cause)).collect()
    }

    /// One look at every open task, and the writes that come of it.
    fn round(
        &self,
        statements: &Statements,
        tasks: &mut [Task],
        lost_connection: &mut Option<Identity>,
        until: Instant,
    ) -> Result<(), Interrupted> {
        let pooled = self.database.pooled();
        let mut connection = pooled.map_err(|error| Interrupted::Again(error.to_string()))?;
        if let Some(lost) = *lost_connection {
            end_connection(&mut connection, lost)?;
            *lost_connection = None;
        }
        if Instant::now() >= until {
            return Err(Interrupted::Again("it answers too slowly".to_owned()));
        }
        look(&mut connection, statements, tasks)?;
        while tasks.iter().any(|task| task.write.is_some()) && Instant::now() < until {
            if let Err(failed) = write(&mut connection, statements, tasks) {
                return Err(recover(
                    &mut connection,
                    failed,
                    statements,
                    tasks,
                    lost_connection,
                ));
            }
        }
        Ok(())
    }
}

/// Looks at the rows of all open tasks, in one packet, and lets each decide.
fn look(
    connection: &mut Connection,
    statements: &Statements,
    tasks: &mut [Task],
) -> Result<(), Interrupted> {
    let looked_at = Instant::now();
    let mut packet = Packet::default();
    for task in tasks.iter().filter(|task| task.is_open()) {
        task.write_look(statements, &mut packet);
    }
    let open = tasks.iter_mut().filter(|task| task.is_open());
    match connection.run(&packet) {
        Ok(replies) => {
            for (task, reply) in open.zip(replies) {
                let row = seen(reply).map_err(|error| Interrupted::Refused(cause(&error)))?;
                task.decide(row, looked_at, statements);
            }
            Ok(())
        }
        Err(PacketError { at, error }) if Trouble::of(&error) == Trouble::Incomparable => {
            // No row can have this id; the others are looked at again without it.
            open.skip(at)
                .take(1)
                .for_each(|task| task.decide(None, looked_at, statements));
            Err(Interrupted::Again(cause(&error)))
        }
        Err(PacketError { error, .. }) => Err(match Trouble::of(&error) {
            Trouble::Lost | Trouble::Deadlock | Trouble::Locked => {
                Interrupted::Again(cause(&error))
            }
            _ => Interrupted::Refused(cause(&error)),
        }),
    }
}

/// Runs all planned writes, each followed by a look, as one transaction in one packet, and lets
/// each task decide from what it saw there.
fn write(
    connection: &mut Connection,
    statements: &Statements,
    tasks: &mut [Task],
) -> Result<(), PacketError> {
    let mut packet = Packet::default();
    packet.push("START TRANSACTION");
    let sent_at = Instant::now();
    for task in tasks.iter_mut() {
        if let Some(write) = &task.write {
            task.sent_at = sent_at;
            write.append(task.operation.session(), statements, &mut packet);
            task.write_look(statements, &mut packet);
        }
    }
    packet.push("COMMIT");
    // Nothing is believed before the COMMIT, the packet's last reply, has come back.
    let mut replies = connection.run(&packet)?.into_iter().skip(1);
    for task in tasks.iter_mut() {
        let Some(write) = task.write.take() else {
            continue;
        };
        // `run` gives a reply for every statement; anything else would be a bug of the driver's.
        let changed: u64 = replies
            .by_ref()
            .take(write.statements())
            .map(|reply| reply.affected)
            .sum();
        let Some(looked) = replies.next() else { break };
        task.sent = if changed > 0 {
            Sent::Done(write.effect())
        } else {
            Sent::Void
        };
        match seen(looked) {
            Ok(row) => task.decide(row, sent_at, statements),
            Err(error) => return Err(PacketError { at: 0, error }),
        }
    }
    Ok(())
}

/// Brings the connection and the tasks into a state from which looking again is safe.
fn recover(
    connection: &mut Connection,
    failed: PacketError,
    statements: &Statements,
    tasks: &mut [Task],
    lost_connection: &mut Option<Identity>,
) -> Interrupted {
    let PacketError { at, error } = failed;
    let trouble = Trouble::of(&error);
    let cause = cause(&error);
    // START TRANSACTION, then each planned write and its look, then COMMIT.
    let mut next = 1;
    let mut is_culprit = |task: &&mut Task| {
        next += task
            .write
            .as_ref()
            .map_or(0, |write| write.statements() + 1);
        at < next
    };
    let culprit = tasks.iter_mut().find(|task| is_culprit(task));
    let rolled_back = matches!(trouble, Trouble::Deadlock | Trouble::Locked);
    if trouble == Trouble::Lost || (culprit.is_none() && !rolled_back) {
        *lost_connection = Some(connection.identity());
        connection.discard();
        for task in tasks.iter_mut() {
            if let Some(write) = task.write.take() {
                task.sent = Sent::Unknown(write.effect());
            }
        }
        return Interrupted::Again(cause);
    }
    match (trouble, culprit) {
        (Trouble::Locked, Some(task)) => task.fail(StoreError::Locked),
        (Trouble::IdsExhausted, Some(task)) => task.try_random_id(statements),
        _ => {}
    }
    // The transaction may still be open with the earlier rows in it.
    let mut rollback = Packet::default();
    rollback.push("ROLLBACK");
    if connection.run(&rollback).is_err() {
        connection.discard();
    }
    for task in tasks.iter_mut() {
        task.write = None;
    }
    match trouble {
        Trouble::Deadlock | Trouble::Locked | Trouble::IdsExhausted => Interrupted::Again(cause),
        _ => {
            // Read-only after a failover, for one: the next connection may reach another server.
            connection.discard();
            Interrupted::Refused(cause)
        }
    }
}

/// Makes sure that a lost connection's last statement cannot take effect any more: a packet that
/// was delayed on its way could still be carried out after we looked.
fn end_connection(connection: &mut Connection, lost: Identity) -> Result<(), Interrupted> {
    /// No such thread; or another user's, who has got its number since.
    const GONE: [u16; 2] = [1094, 1095];
    let again = |error: mysql::Error| Interrupted::Again(cause(&error));
    let uptime = Statement::new(include_str!("../sql/server_uptime.sql"), &[]);
    let uptime = connection
        .query(&uptime, &[])
        .map_err(again)?
        .pop()
        .map(columns);
    let uptime: Option<(String, u64)> = uptime.transpose().map_err(again)?;
    let age_s = lost.opened.elapsed().as_secs();
    if uptime.is_some_and(|(_, uptime_s)| uptime_s + 1 < age_s) {
        // It was to an earlier life of the server, and its number may be somebody else's now.
        return Ok(());
    }
    let kill = Statement::new(include_str!("../sql/kill.sql"), &[]);
    let until = Instant::now() + KILL_PATIENCE;
    loop {
        match connection.query(&kill, &[("id", Value::Number(lost.id.into()))]) {
            Err(mysql::Error::MySqlError(error)) if GONE.contains(&error.code) => return Ok(()),
            Err(error) => return Err(again(error)),
            Ok(_) if Instant::now() > until => {
                return Err(Interrupted::Again(
                    "a lost connection does not end".to_owned(),
                ));
            }
            Ok(_) => thread::sleep(KILL_PAUSE),
        }
    }
}

impl<'a> Task<'a> {
    fn new(operation: &'a Operation, now: Instant) -> Self {
        Self {
            operation,
            write: None,
            sent: Sent::Nothing,
            sent_at: now,
            new_key: Key::Next,
            ids_tried: 0,
            outcome: None,
        }
    }

    fn is_open(&self) -> bool {
        self.outcome.is_none()
    }

    fn finish(mut self, cause: &str) -> Result<Answer, StoreError> {
        if self.outcome.is_none() {
            let cause = if cause.is_empty() {
                "too much contention"
            } else {
                cause
            };
            self.fail(StoreError::Unavailable(cause.to_owned()));
        }
        self.outcome.unwrap_or(Err(StoreError::Internal))
    }

    /// Ends without an answer, but not without a word if something may have been written.
    fn fail(&mut self, error: StoreError) {
        self.outcome = Some(Err(match self.sent {
            Sent::Done(_) | Sent::Unknown(_) => StoreError::Unsettled(error.to_string()),
            Sent::Nothing | Sent::Void => error,
        }));
    }

    /// Either the answer or the next write, from the row that was seen.
    fn decide(&mut self, seen: Option<Seen>, looked_at: Instant, statements: &Statements) {
        let answer = match self.operation {
            Operation::Acquire {
                owner_token, ttl, ..
            } => self
                .decide_acquire(seen, looked_at, owner_token, *ttl, statements)
                .map(Answer::Acquire),
            Operation::Recall {
                owner_token, ttl, ..
            } => {
                let own = seen.filter(|row| row.is_owned_by(owner_token));
                let lease = own.and_then(|row| row.lease(How::Again, *ttl, looked_at));
                Some(Answer::Recall(lease))
            }
            Operation::Release { owner_token, .. } => {
                let own = seen.filter(|row| row.is_owned_by(owner_token));
                self.decide_end(own).map(|ended| {
                    Answer::Release(match ended {
                        Forced::Released(_) => Released::Released,
                        Forced::NotHeld => Released::Lost,
                    })
                })
            }
            Operation::Renew {
                owner_token,
                ttl,
                max_hold_ms,
                ..
            } => {
                let own = seen.filter(|row| row.is_owned_by(owner_token));
                self.decide_renew(own, looked_at, *ttl, *max_hold_ms)
                    .map(Answer::Renew)
            }
            Operation::Force {
                fencing_token: only,
                ..
            } => {
                let meant = seen.filter(|row| match (only, &row.stamp) {
                    (None, _) => true,
                    (Some(only), Stamp::Lease { fencing_token, .. }) => only == fencing_token,
                    (Some(_), Stamp::Foreign) => false,
                });
                self.decide_end(meant).map(Answer::Force)
            }
            Operation::Look { .. } => {
                Some(Answer::Look(seen.and_then(|row| row.holding(looked_at))))
            }
        };
        if let Some(answer) = answer {
            self.outcome = Some(Ok(answer));
        }
    }

    fn decide_acquire(
        &mut self,
        seen: Option<Seen>,
        looked_at: Instant,
        owner_token: &OwnerToken,
        ttl: Ttl,
        statements: &Statements,
    ) -> Option<Acquired> {
        let lease = Wanted {
            owner_token: owner_token.clone(),
            ttl,
        };
        let Some(row) = seen else {
            if matches!(self.sent, Sent::Void) {
                // Nothing was in the way, and yet nothing was written: MySQL's word for "no id".
                self.try_random_id(statements);
            }
            let key = self.new_key;
            if self.is_open() {
                self.write = Some(Write::Acquire {
                    lease,
                    key,
                    seen: None,
                    fencing_floor: 0,
                    how: How::New,
                });
            }
            return None;
        };
        let Some(holding) = row.holding(looked_at) else {
            self.write = Some(row.replace(lease, How::Takeover));
            return None;
        };
        if !row.is_owned_by(owner_token) {
            return Some(Acquired::Held(holding));
        }
        let (how, promised) = match self.sent {
            // The stored expiry is rounded up; what was asked for is the honest promise.
            Sent::Done(Effect::Granted(how)) | Sent::Unknown(Effect::Granted(how)) => {
                (how, self.sent_at + ttl.as_duration())
            }
            _ => (How::Again, holding.expires),
        };
        let mut granted = row.lease(how, ttl, looked_at)?;
        granted.expires = granted.expires.min(promised);
        if granted.is_worn() {
            // The write waited for a lock; nobody was told of this lease yet, so it starts afresh.
            self.write = Some(row.replace(lease, how));
            return None;
        }
        Some(Acquired::Granted(granted))
    }

    fn decide_renew(
        &mut self,
        own: Option<Seen>,
        looked_at: Instant,
        ttl: Ttl,
        max_hold_ms: u64,
    ) -> Option<Renewed> {
        let Some(row) = own else {
            return Some(Renewed::Lost);
        };
        let Stamp::Lease {
            fencing_token,
            owner_token,
        } = row.stamp.clone()
        else {
            return Some(Renewed::Lost);
        };
        let held_ms = row.clock_us.saturating_sub(fencing_token.0) / 1_000;
        let Some(ttl) = ttl.cut_to(max_hold_ms.saturating_sub(held_ms)) else {
            return Some(Renewed::MaxHold);
        };
        let Some(remaining) = row.remaining() else {
            return Some(Renewed::Lost);
        };
        // The row says it, whoever wrote it: this renew, or one like it at the same time, which
        // makes a second write of the same text no write at all.
        let expires = looked_at + remaining;
        let wanted = self.sent_at + ttl.as_duration();
        let is_renewed = match self.sent {
            Sent::Done(_) => true,
            Sent::Void | Sent::Unknown(_) => expires >= wanted,
            Sent::Nothing => false,
        };
        if is_renewed {
            return Some(Renewed::Renewed {
                fencing_token,
                expires: expires.min(wanted),
            });
        }
        let left_us = u64::try_from(remaining.as_micros()).unwrap_or(u64::MAX);
        self.write = Some(Write::Renew {
            lease: Wanted { owner_token, ttl },
            key: row.key,
            seen: row.stored,
            fencing_token,
            expires_us: row.clock_us.saturating_add(left_us),
            max_hold_ms,
        });
        None
    }

    /// Ends the lease in a row that is meant to be ended: who held it, or that nobody did.
    fn decide_end(&mut self, meant: Option<Seen>) -> Option<Forced> {
        match (self.sent, meant) {
            (Sent::Done(Effect::Ended(holder)), _)
            | (Sent::Unknown(Effect::Ended(holder)), None) => Some(Forced::Released(holder)),
            (_, Some(row)) if row.remaining().is_some() => {
                let holder = row.holder();
                self.write = Some(Write::Delete {
                    key: row.key,
                    seen: row.stored,
                    holder,
                });
                None
            }
            _ => Some(Forced::NotHeld),
        }
    }

    /// Any id will do when the counter has none left, if only its row is free.
    fn try_random_id(&mut self, statements: &Statements) {
        self.ids_tried += 1;
        if self.ids_tried > ID_TRIES {
            return self.fail(StoreError::IdsExhausted);
        }
        let mut bytes = [0; 8];
        if getrandom::fill(&mut bytes).is_ok() {
            // Low ones first: they keep the counter's reset possible, which the operator is told of.
            let among = match self.ids_tried {
                0..=LOW_ID_TRIES => statements.table.max_key / LOW_IDS_SHARE,
                _ => statements.table.max_key,
            };
            self.new_key = Key::Explicit(1 + u64::from_ne_bytes(bytes) % among.max(1));
        }
    }

    fn write_look(&self, statements: &Statements, packet: &mut Packet) {
        statements
            .look
            .write(packet, &session_values(self.operation.session()));
    }
}

impl Seen {
    /// The write that puts a lease in this row's place.
    fn replace(self, lease: Wanted, how: How) -> Write {
        let fencing_floor = match self.stamp {
            Stamp::Lease { fencing_token, .. } => fencing_token.0 + 1,
            Stamp::Foreign => 0,
        };
        let (key, seen) = (Key::Explicit(self.key), Some(self.stored));
        Write::Acquire {
            lease,
            key,
            seen,
            fencing_floor,
            how,
        }
    }
}

impl Write {
    fn append(&self, session: &Session, statements: &Statements, packet: &mut Packet) {
        let [prospect, device] = session_values(session);
        match self {
            Self::Acquire {
                lease,
                key,
                seen,
                fencing_floor,
                ..
            } => {
                let key = match key {
                    Key::Next => Value::Null,
                    Key::Explicit(key) => Value::Number(*key),
                };
                let values = [
                    prospect,
                    device,
                    ("key", key),
                    ("seen", seen.as_deref().map_or(Value::Null, Value::Bytes)),
                    ("shift_us", shift_us(lease.ttl.as_ms())),
                    ("fencing_floor", Value::Number(*fencing_floor)),
                    ("owner_token", Value::Text(lease.owner_token.secret())),
                ];
                statements.acquire.write(packet, &values);
                statements.stamp.write(packet, &values);
            }
            Self::Renew {
                lease,
                key,
                seen,
                fencing_token: FencingToken(granted_us),
                expires_us,
                max_hold_ms,
            } => {
                let key = ("key", Value::Number(*key));
                statements.renew_lock.write(packet, &[key]);
                let tail = format!("{granted_us:016}{}", lease.owner_token.secret());
                let latest_us = granted_us.saturating_add(max_hold_ms * 1_000);
                let values = [
                    key,
                    ("seen", Value::Bytes(seen)),
                    ("expires_us", Value::Number(*expires_us)),
                    ("shift_us", shift_us(lease.ttl.as_ms())),
                    ("granted_us", Value::Number(*granted_us)),
                    ("latest_us", Value::Number(latest_us)),
                    ("latest_shift_us", shift_us(*max_hold_ms)),
                    ("tail", Value::Text(&tail)),
                ];
                statements.renew.write(packet, &values);
            }
            Self::Delete { key, seen, .. } => {
                let seen = ("seen", Value::Bytes(seen));
                statements.release.write(
                    packet,
                    &[prospect, device, ("key", Value::Number(*key)), seen],
                );
            }
        }
    }

    /// How many statements it takes.
    fn statements(&self) -> usize {
        match self {
            Self::Acquire { .. } | Self::Renew { .. } => 2,
            Self::Delete { .. } => 1,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Acquire { how, .. } => Effect::Granted(*how),
            Self::Renew { .. } => Effect::Renewed,
            Self::Delete { holder, .. } => Effect::Ended(*holder),
        }
    }
}

/// What a write adds to the clock to get the stored date.
fn shift_us(lasts_ms: u64) -> Value<'static> {
    let shift_ms = lasts_ms.cast_signed() - HOLD_MS.cast_signed();
    Value::Signed(shift_ms * 1_000 + ROUND_UP_US)
}

fn session_values(session: &Session) -> [(&'static str, Value<'_>); 2] {
    [
        ("id_prospect", Value::Text(session.id_prospect.as_str())),
        ("id_device", Value::Text(session.id_device.as_str())),
    ]
}

/// The row that a look gave, if there is one.
fn seen(reply: Reply) -> mysql::Result<Option<Seen>> {
    reply.rows.into_iter().next().map(Seen::read).transpose()
}
