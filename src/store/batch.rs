//! A batch of operations in, a batch of answers out.
//!
//! All operations of a batch go through the same loop together. One packet reads for those that
//! begin with a read. One packet writes, and its counts and the rows that it reads back are the
//! answers. A stale row leads to one more packet, which takes the row over. If a packet for several
//! operations fails, each operation continues alone, so that the error of one does not fail the
//! others.

use std::sync::Arc;
use std::time::Instant;

use super::attempt::{Attempt, Sharing, after_refusal};
use super::operation::{Answer, Operation, StoreError};
use super::packet::Statements;
use super::{BATCH_TIMEOUT, Store};
use crate::db::{Connection, ConnectionId, ErrorKind, PacketError, cause};
use crate::lease::Snapshot;

/// The maximum number of operations in one batch, and so in one packet. A larger batch would
/// gain little, and would make more operations wait if one fails.
pub const BATCH_MAX: usize = 64;

/// Why a round ended before every operation had its answer, with the cause as text.
pub(super) enum Interrupted {
    /// Another round may succeed.
    Again(String),
    /// The database does not answer.
    DatabaseDown(String),
    /// The same packet would fail again.
    Refused(String),
}

/// How to handle locks that other programs hold on rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    /// A write waits for a lock, for 1 s.
    Wait,
    /// A check precedes each write, which fails at once if there is a lock.
    Check,
}

impl Store {
    /// Runs the operations, those that write in one transaction if nothing fails. Returns the
    /// answers in the same order.
    pub fn run(&self, operations: &[Operation], locks: Locks) -> Vec<Result<Answer, StoreError>> {
        let statements = match self.statements() {
            Ok(statements) => statements,
            Err(error) => return operations.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut attempts: Vec<_> = operations.iter().map(Attempt::new).collect();
        let until = Instant::now() + BATCH_TIMEOUT;
        let mut batch =
            Batch { store: self, statements, locks, until, lost: None, is_inspected: false };
        let cause = batch.run(&mut attempts);
        attempts.into_iter().map(|attempt| attempt.finish(&cause)).collect()
    }
}

/// The state that the rounds of one batch share.
pub(super) struct Batch<'s> {
    store: &'s Store,
    pub statements: Arc<Statements>,
    locks: Locks,
    until: Instant,
    /// Whether an inspection of the server and its tables was requested after an error. If so, the
    /// same error is final.
    is_inspected: bool,
    /// The connection that was lost during a write, until it has verifiably ended.
    pub lost: Option<ConnectionId>,
}

impl Batch<'_> {
    /// Runs rounds until all operations have their answer or the time is over. Returns the last
    /// error.
    fn run(&mut self, attempts: &mut [Attempt]) -> String {
        let mut last_cause = String::new();
        while attempts.iter().any(Attempt::is_open) && self.is_in_time() {
            let open = attempts.iter_mut().filter(|attempt| attempt.is_open());
            let (mut alone, together): (Vec<_>, Vec<_>) =
                open.partition(|attempt| attempt.sharing == Sharing::Nothing);
            // Operations without a message go first: if another program has locked the table of
            // messages, only the others fail.
            alone.sort_by_key(|attempt| attempt.operation.message_id().is_some());
            let groups = alone.into_iter().map(|attempt| vec![attempt]);
            for mut group in [together].into_iter().chain(groups) {
                // If the database hangs, each group may wait for a timeout, so check the time for
                // each.
                if group.is_empty() || !self.is_in_time() {
                    continue;
                }
                match self.run_group(&mut group) {
                    Ok(()) => {}
                    Err(Interrupted::Again(cause)) => last_cause = cause,
                    Err(Interrupted::DatabaseDown(cause)) => return cause,
                    Err(Interrupted::Refused(cause)) => {
                        after_refusal(&mut group, &cause);
                        last_cause = cause;
                    }
                }
            }
        }
        last_cause
    }

    fn is_in_time(&self) -> bool {
        Instant::now() < self.until
    }

    /// Sends packets on one connection until these operations have their answer.
    fn run_group(&mut self, attempts: &mut [&mut Attempt]) -> Result<(), Interrupted> {
        let health = self.store.database.health();
        health.wait_until_up(self.until).map_err(Interrupted::DatabaseDown)?;
        if let Some(connection) = self.lost {
            health.wait_until_ended(connection, self.until).map_err(Interrupted::Again)?;
            self.lost = None;
        }
        let mut connection = self.store.database.pooled().map_err(Interrupted::Again)?;
        if self.is_inspected {
            self.use_inspected_tables(attempts);
        }
        while self.is_in_time() {
            let open = attempts.iter_mut().map(|attempt| &mut **attempt).filter(|a| a.is_open());
            let (mut reading, mut writing): (Vec<_>, Vec<_>) =
                open.partition(|attempt| attempt.is_reading());
            if !reading.is_empty() {
                self.read(&mut connection, &mut reading)?;
                continue;
            }
            if self.locks == Locks::Check {
                self.fail_locked(&mut connection, &mut writing);
                writing.retain(|attempt| attempt.is_open());
            }
            if writing.is_empty() {
                return Ok(());
            }
            self.write(&mut connection, &mut writing)?;
        }
        Ok(())
    }

    /// Continues with the tables as the last inspection found them.
    fn use_inspected_tables(&mut self, attempts: &mut [&mut Attempt]) {
        if let Some(statements) = self.store.opened() {
            self.statements = statements;
        }
        if let Err(why) = self.store.check_message_table() {
            let of_messages = attempts.iter_mut().filter(|a| a.operation.message_id().is_some());
            for attempt in of_messages.filter(|attempt| attempt.is_open()) {
                attempt.fail(StoreError::NotStorable(format!("message_id is refused: {why}")));
            }
        }
    }

    /// Handles a packet that the database refused without writing anything. The first time, has the
    /// server and its tables inspected. The second time, the error is final.
    pub(super) fn inspect_once(&mut self, kind: ErrorKind, cause: String) -> Interrupted {
        if !kind.needs_verifying() || std::mem::replace(&mut self.is_inspected, true) {
            return Interrupted::Refused(cause);
        }
        self.store.suspect(kind);
        Interrupted::Again(cause)
    }

    /// Reads the rows of all these operations in one packet, and lets each operation decide.
    fn read(
        &mut self,
        connection: &mut Connection,
        attempts: &mut [&mut Attempt],
    ) -> Result<(), Interrupted> {
        let sent_at = Instant::now();
        let (packet, reads) = self.statements.read_packet(attempts);
        let replies = match connection.run(&packet) {
            Ok(replies) => replies,
            Err(PacketError { error, .. }) => {
                let cause = cause(&error);
                return match (ErrorKind::of(&error), attempts) {
                    (ErrorKind::Incomparable, [attempt]) => {
                        // No row can have these ids.
                        attempt.after_read(Snapshot::default(), sent_at);
                        Ok(())
                    }
                    (ErrorKind::ConnectionLost | ErrorKind::Deadlock, _) => {
                        Err(Interrupted::Again(cause))
                    }
                    (ErrorKind::RowLocked, [attempt]) => {
                        attempt.fail(StoreError::RowLocked);
                        Err(Interrupted::Again(cause))
                    }
                    (kind, _) => Err(self.inspect_once(kind, cause)),
                };
            }
        };
        let snapshots = reads.snapshots(attempts, replies, &self.statements);
        let snapshots = snapshots.map_err(|error| Interrupted::Refused(cause(&error)))?;
        for (attempt, snapshot) in attempts.iter_mut().zip(snapshots) {
            match snapshot {
                Some(snapshot) => attempt.after_read(snapshot, sent_at),
                None => attempt.restart(),
            }
        }
        Ok(())
    }

    /// Sends the next packet that writes, and lets each operation decide from the rows that were
    /// read back.
    fn write(
        &mut self,
        connection: &mut Connection,
        attempts: &mut [&mut Attempt],
    ) -> Result<(), Interrupted> {
        let (packet, layout) = self.statements.write_packet(attempts);
        let sent_at = Instant::now();
        // Nothing is decided before the last reply: COMMIT may still fail.
        let replies = match connection.run(&packet) {
            Ok(replies) => replies,
            Err(failed) => {
                self.statements.ids.confirm([], &layout.new_ids);
                return Err(self.recover(connection, failed, attempts, sent_at));
            }
        };
        if let ([attempt], true) = (&mut *attempts, layout.is_plain_insert) {
            let row = layout.inserted(&replies);
            attempt.after_insert(row, sent_at);
            self.statements.ids.confirm(row.map(|(key, _)| key), &layout.new_ids);
            return Ok(());
        }
        let snapshots = match layout.snapshots(attempts, replies, &self.statements) {
            Ok(snapshots) => snapshots,
            Err(error) => {
                // The packet was committed nevertheless.
                for attempt in attempts {
                    attempt.mark_lost(sent_at);
                }
                return Err(Interrupted::Refused(cause(&error)));
            }
        };
        let keys = snapshots.iter().flatten().filter_map(|read| Some(read.row.as_ref()?.key));
        self.statements.ids.confirm(keys, &layout.new_ids);
        for (attempt, snapshot) in attempts.iter_mut().zip(snapshots) {
            match snapshot {
                Some(snapshot) => attempt.after_write(snapshot, sent_at),
                None => attempt.mark_ambiguous(sent_at),
            }
            if attempt.is_writing() && attempt.needs_new_id() {
                self.statements.ids.jump();
            }
        }
        Ok(())
    }
}
