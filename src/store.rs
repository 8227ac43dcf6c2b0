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

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mysql::{Opts, Row};

use crate::database::{
    Connection, Database, Packet, PacketError, Pooled, Reply, Statement, Trouble, Value, cause, columns,
};
use crate::lease::{
    Acquired, FencingToken, Forced, HOLD_MS, Holder, Holding, How, Lease, OwnerToken, Released,
    Session, Stamp, Ttl,
};
use crate::table::{self, Finding, Report, Table, Verdict, Writes};

/// No new try begins after this. With the socket's own time-outs on top, every operation ends
/// within 10 s, before a webhook's provider gives up.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long to wait for the database to end a connection that was lost in the middle of a write.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two looks at a connection that is being ended.
const KILL_PAUSE: Duration = Duration::from_millis(5);

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
    /// Give the lease back.
    Release {
        /// Of this session.
        session: Session,
        /// By the worker that knows this token.
        owner_token: OwnerToken,
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
            | Self::Release { session, .. }
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
    /// Of a release.
    Release(Released),
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
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(cause) => write!(f, "the database is not available ({cause}); nothing was written, try again"),
            Self::Locked => f.write_str(
                "another program holds a database lock on this session's row or on the table; nothing was written, try again",
            ),
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
    release: Statement,
    may_delete: Statement,
    max_key: u64,
}

impl Statements {
    fn new(table: &Table) -> Self {
        let names = [("table", table.name.as_str()), ("key", table.key.as_str())];
        Self {
            look: Statement::new(include_str!("../sql/look.sql"), &names),
            acquire: Statement::new(include_str!("../sql/acquire.sql"), &names),
            release: Statement::new(include_str!("../sql/release.sql"), &names),
            may_delete: Statement::new(include_str!("../sql/may_delete.sql"), &names),
            max_key: table.max_key,
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

impl Seen {
    fn read(row: Row) -> mysql::Result<Self> {
        let (key, stored, age_us, clock_us): (u64, Vec<u8>, Option<i64>, u64) = columns(row)?;
        let hold_us = i64::try_from(HOLD_MS * 1_000).expect("30 s fit");
        let stamp = Stamp::parse(&stored);
        let remaining_us = age_us.map(|age_us| hold_us.saturating_sub(age_us));
        Ok(Self {
            key,
            stored,
            stamp,
            remaining_us,
            clock_us,
        })
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
        })
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
        let statements = self.statements()?;
        let until = Instant::now() + PATIENCE;
        loop {
            let mut connection = self.pooled()?;
            let Err(error) = connection.query(&statements.may_delete, &[]) else {
                return Ok(());
            };
            // Connections that idled through a restart of the database fail once each.
            if Trouble::of(&error) != Trouble::Lost || Instant::now() > until {
                return Err(StoreError::Unavailable(cause(&error)));
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
        lost_connection: &mut Option<u32>,
        until: Instant,
    ) -> Result<(), Interrupted> {
        let pooled = self.database.pooled();
        let mut connection = pooled.map_err(|error| Interrupted::Again(error.to_string()))?;
        if let Some(id) = *lost_connection {
            end_connection(&mut connection, id)?;
            *lost_connection = None;
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
        let (Some(done), Some(looked)) = (replies.next(), replies.next()) else {
            break;
        };
        task.sent = if done.affected > 0 {
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
    lost_connection: &mut Option<u32>,
) -> Interrupted {
    let PacketError { at, error } = failed;
    let trouble = Trouble::of(&error);
    let cause = cause(&error);
    let writes = tasks.iter().filter(|task| task.write.is_some()).count();
    let at_commit = at > 2 * writes && !matches!(trouble, Trouble::Deadlock | Trouble::Locked);
    if trouble == Trouble::Lost || at_commit {
        *lost_connection = Some(connection.id());
        connection.discard();
        for task in tasks.iter_mut() {
            if let Some(write) = task.write.take() {
                task.sent = Sent::Unknown(write.effect());
            }
        }
        return Interrupted::Again(cause);
    }
    // The transaction may still be open with the earlier rows in it.
    let mut rollback = Packet::default();
    rollback.push("ROLLBACK");
    if connection.run(&rollback).is_err() {
        connection.discard();
    }
    // START TRANSACTION, then two statements for each planned write.
    let culprit = tasks
        .iter_mut()
        .filter(|task| task.write.is_some())
        .nth(at.saturating_sub(1) / 2);
    match (trouble, culprit) {
        (Trouble::Locked, Some(task)) => task.outcome = Some(Err(StoreError::Locked)),
        (Trouble::IdsExhausted, Some(task)) => task.try_random_id(statements),
        _ => {}
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
fn end_connection(connection: &mut Connection, id: u32) -> Result<(), Interrupted> {
    const NO_SUCH_THREAD: u16 = 1094;
    let kill = Statement::new("KILL :id", &[]);
    let until = Instant::now() + KILL_PATIENCE;
    loop {
        match connection.query(&kill, &[("id", Value::Number(id.into()))]) {
            Err(mysql::Error::MySqlError(error)) if error.code == NO_SUCH_THREAD => return Ok(()),
            Err(error) => return Err(Interrupted::Again(cause(&error))),
            Ok(_) if Instant::now() > until => {
                return Err(Interrupted::Again(format!("connection {id} does not end")));
            }
            Ok(_) => std::thread::sleep(KILL_PAUSE),
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

    fn finish(self, cause: &str) -> Result<Answer, StoreError> {
        let cause = if cause.is_empty() {
            "too much contention"
        } else {
            cause
        }
        .to_owned();
        self.outcome.unwrap_or(Err(match self.sent {
            Sent::Unknown(_) => StoreError::Unsettled(cause),
            Sent::Nothing | Sent::Done(_) | Sent::Void => StoreError::Unavailable(cause),
        }))
    }

    /// Either the answer or the next write, from the row that was seen.
    fn decide(&mut self, seen: Option<Seen>, looked_at: Instant, statements: &Statements) {
        let answer = match self.operation {
            Operation::Acquire {
                owner_token, ttl, ..
            } => self
                .decide_acquire(seen, looked_at, owner_token, *ttl, statements)
                .map(Answer::Acquire),
            Operation::Release { owner_token, .. } => {
                let own = seen.filter(|row| row.is_owned_by(owner_token));
                self.decide_end(own).map(|ended| {
                    Answer::Release(match ended {
                        Forced::Released(_) => Released::Released,
                        Forced::NotHeld => Released::Lost,
                    })
                })
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
        let Holder::Leased { fencing_token, .. } = holding.holder else {
            return Some(Acquired::Held(holding));
        };
        if !row.is_owned_by(owner_token) {
            return Some(Acquired::Held(holding));
        }
        let (how, expires) = match self.sent {
            Sent::Done(Effect::Granted(how)) | Sent::Unknown(Effect::Granted(how)) => {
                // The stored expiry is rounded up; what was asked for is the honest promise.
                (how, holding.expires.min(self.sent_at + ttl.as_duration()))
            }
            _ => (How::Again, holding.expires),
        };
        let granted = Lease {
            owner_token: owner_token.clone(),
            fencing_token,
            how,
            ttl,
            expires,
        };
        if granted.is_worn() {
            // The write waited for a lock; nobody was told of this lease yet, so it starts afresh.
            self.write = Some(row.replace(lease, how));
            return None;
        }
        Some(Acquired::Granted(granted))
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
            self.outcome = Some(Err(StoreError::IdsExhausted));
            return;
        }
        let mut bytes = [0; 8];
        if getrandom::fill(&mut bytes).is_ok() {
            self.new_key = Key::Explicit(1 + u64::from_ne_bytes(bytes) % statements.max_key);
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
                let shift_us = lease.ttl.as_ms().cast_signed() - HOLD_MS.cast_signed();
                let values = [
                    prospect,
                    device,
                    ("key", key),
                    ("seen", seen.as_deref().map_or(Value::Null, Value::Bytes)),
                    ("shift_us", Value::Signed(shift_us * 1_000 + ROUND_UP_US)),
                    ("fencing_floor", Value::Number(*fencing_floor)),
                    ("owner_token", Value::Text(lease.owner_token.secret())),
                ];
                statements.acquire.write(packet, &values);
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

    fn effect(&self) -> Effect {
        match self {
            Self::Acquire { how, .. } => Effect::Granted(*how),
            Self::Delete { holder, .. } => Effect::Ended(*holder),
        }
    }
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

