//! A lock table and a message table in memory, as far as our statements can tell them from the real ones
//! under READ COMMITTED. One function a file of `sql/`, with each of its guards by name: the model drops
//! them one by one. `tests/it/store/simulated_table.rs` compares it with MariaDB and MySQL.

use super::content::Content;
use super::sql::{Message, Owner, Session, Stmt};
use super::statements::Access;

/// What a statement's WHERE, CASE or clock protects. The name says what happens without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    AcquireDatesAnyRow,
    AcquireReplacesChangedRow,
    AcquireReplacesOtherSession,
    AcquireDatesBeforeLock,
    AcquireIgnoresFencingFloor,
    AnsweredKeepsLease,
    AnsweredByOtherMessage,
    AnsweredReleasesOtherLease,
    RenewIgnoresOwner,
    RenewIgnoresExpiry,
    RenewReadsClockEarly,
    RenewIgnoresMaxHold,
    RenewIsNotCapped,
    ReleaseIgnoresOwner,
    ReleaseIgnoresExpiry,
    ReleaseReadsClockEarly,
    SeveralIgnoreOwners,
    SeveralIgnoreExpiry,
    SeveralBelieveCount,
    DeleteIgnoresBytes,
    DeleteIgnoresSession,
    CommitDoesNotLock,
    CommitIgnoresOwner,
    CommitIgnoresExpiry,
    CommitReadsClockEarly,
    CommitReplacesRecord,
    RecordIgnoresCount,
    RecordReplacesRecord,
    ReplicaIsBelieved,
}

/// How the table behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    pub dropped: Option<Guard>,
    /// How far each reading of the clock for a fencing token moves it.
    pub step_us: u64,
    /// How far ahead an old program's clock is: its row holds that much longer.
    pub old_ahead_s: u64,
}

impl Rules {
    pub fn has(self, guard: Guard) -> bool {
        self.dropped != Some(guard)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    pub key: i64,
    pub session: Session,
    pub content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    pub session: Session,
    pub message: Message,
    pub owner: Owner,
}

/// What is committed, and the database's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Table {
    pub now_us: u64,
    /// How far that clock has stepped back: the servers' clocks did not.
    pub behind_us: u64,
    /// In the order of their sessions.
    pub rows: Vec<Row>,
    /// In order.
    pub records: Vec<Record>,
}

/// One connection's transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn {
    pub is_open: bool,
    /// To a replica that lags and takes no writes: a copy of the tables as they were at first.
    pub is_replica: bool,
    pub(super) rows: Vec<(Session, Option<Row>)>,
    pub(super) records: Vec<Record>,
    pub(super) locks: Vec<Session>,
    pub(super) row_count: u64,
    /// The fencing token that this packet wrote last.
    pub(super) last_insert_id: u64,
    /// When the statement began, if its clock is read then.
    pub(super) began_us: Option<u64>,
}

/// A row as `read.sql` returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowRead {
    pub row: Row,
    pub clock_us: u64,
}

/// The reply to a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reply {
    pub affected: u64,
    pub last_insert_id: u64,
    pub rows: Vec<RowRead>,
    pub records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done(Reply),
    /// It waits for another transaction's lock.
    Blocked,
    /// It has begun, and read the clock too early: a guard is dropped.
    Begun,
    /// 1690, by `all_released.sql`.
    NotAllReleased,
    /// 1290.
    ReadOnly,
}

impl Conn {
    pub(super) fn set(&mut self, session: Session, row: Option<Row>) {
        self.rows.retain(|(known, _)| *known != session);
        self.rows.push((session, row));
        self.rows.sort_by_key(|(session, _)| *session);
        self.lock(session);
    }

    pub(super) fn lock(&mut self, session: Session) {
        if !self.locks.contains(&session) {
            self.locks.push(session);
            self.locks.sort_unstable();
        }
    }

    pub fn has_lock(&self, session: Session) -> bool {
        self.locks.contains(&session)
    }

    pub(super) fn inserts_key(&self, key: i64) -> bool {
        self.rows.iter().any(|(_, row)| row.as_ref().is_some_and(|row| row.key == key))
    }

    /// The rows that its transaction has written.
    pub fn written(&self) -> &[(Session, Option<Row>)] {
        &self.rows
    }

    pub fn recorded(&self) -> &[Record] {
        &self.records
    }

    fn end(&mut self) {
        *self = Self { is_replica: self.is_replica, row_count: self.row_count, ..Self::default() };
    }
}

impl Table {
    pub fn row(&self, session: Session) -> Option<&Row> {
        self.rows.iter().find(|row| row.session == session)
    }

    /// The row as a transaction sees it.
    pub fn row_in<'a>(&'a self, conn: &'a Conn, session: Session) -> Option<&'a Row> {
        let own = conn.rows.iter().find(|(written, _)| *written == session);
        own.map_or_else(|| self.row(session), |(_, row)| row.as_ref())
    }

    pub(super) fn row_with_key<'a>(&'a self, conn: &'a Conn, key: i64) -> Option<&'a Row> {
        let own = conn.rows.iter().filter_map(|(_, row)| row.as_ref());
        let committed = self.rows.iter();
        let committed =
            committed.filter(|row| !conn.rows.iter().any(|(own, _)| *own == row.session));
        own.chain(committed).find(|row| row.key == key)
    }

    pub fn record_in(&self, conn: &Conn, session: Session, message: Message) -> Option<Record> {
        let all = self.records.iter().chain(&conn.records);
        all.copied().find(|record| (record.session, record.message) == (session, message))
    }

    /// The clock for a fencing token.
    pub fn tick(&mut self, rules: Rules) -> u64 {
        self.now_us += rules.step_us;
        self.now_us
    }

    /// The clock for anything else: after the last fencing token, and before the next.
    pub fn between_us(&self, rules: Rules) -> u64 {
        self.now_us + rules.step_us / 2
    }

    /// The servers' clocks.
    pub fn server_us(&self, rules: Rules) -> u64 {
        self.between_us(rules) + self.behind_us
    }

    pub fn commit(&mut self, conn: &mut Conn) {
        for (session, row) in std::mem::take(&mut conn.rows) {
            self.rows.retain(|row| row.session != session);
            self.rows.extend(row);
        }
        self.rows.sort_by_key(|row| row.session);
        for record in &conn.records {
            self.records
                .retain(|old| (old.session, old.message) != (record.session, record.message));
            self.records.push(*record);
        }
        self.records.sort_unstable();
        conn.end();
    }

    /// Ends a transaction with nothing done.
    pub fn roll_back(conn: &mut Conn) {
        conn.end();
    }

    /// Runs a statement. `others` are all other connections. Outside of a transaction, what it wrote is
    /// committed next.
    pub fn run(&mut self, stmt: &Stmt, conn: &mut Conn, others: &[&Conn], rules: Rules) -> Outcome {
        let is_believed = *stmt == Stmt::TakesWrites && !rules.has(Guard::ReplicaIsBelieved);
        if conn.is_replica && (stmt.writes() || *stmt == Stmt::TakesWrites) && !is_believed {
            return Outcome::ReadOnly;
        }
        let mut access = Access { table: self, conn, others, rules };
        if let Some(begun) = access.begin(stmt) {
            return begun;
        }
        if stmt.waits(rules) && stmt.sessions().any(|session| access.is_locked(session)) {
            return Outcome::Blocked;
        }
        let outcome = access.execute(stmt);
        if let Outcome::Done(reply) = &outcome {
            conn.began_us = None;
            conn.row_count = reply.affected;
            if matches!(stmt, Stmt::Acquire(_)) && reply.last_insert_id > 0 {
                conn.last_insert_id = reply.last_insert_id;
            }
        }
        outcome
    }
}

impl Stmt {
    /// The sessions whose rows it reads with a lock, or writes.
    fn sessions(&self) -> impl Iterator<Item = Session> {
        let sessions: Vec<Session> = match self {
            Self::Acquire(claims) => claims.iter().map(|claim| claim.session).collect(),
            Self::ReleaseSeveral(leases) => leases.iter().map(|(session, _)| *session).collect(),
            Self::ReleaseAnswered(session, ..)
            | Self::Renew(session, ..)
            | Self::Release(session, _)
            | Self::DeleteRow(session, ..)
            | Self::Lock(session)
            | Self::OldUpsert(session, _)
            | Self::OldDelete(session) => vec![*session],
            _ => vec![],
        };
        sessions.into_iter()
    }

    fn waits(&self, rules: Rules) -> bool {
        !matches!(self, Self::Lock(_)) || rules.has(Guard::CommitDoesNotLock)
    }

    /// The guard without which its clock is that of its beginning.
    pub(super) fn clock_guard(&self) -> Option<Guard> {
        match self {
            Self::Acquire(_) => Some(Guard::AcquireDatesBeforeLock),
            Self::Renew(..) => Some(Guard::RenewReadsClockEarly),
            Self::Release(..) => Some(Guard::ReleaseReadsClockEarly),
            Self::CommitMessage(..) => Some(Guard::CommitReadsClockEarly),
            _ => None,
        }
    }
}
