//! A batch of operations in, a batch of answers out.
//!
//! All operations of a batch go through the same loop together: one packet reads for those that begin
//! with a read, one writes, and the rows that it reads back are the answers. A stale row leads to one
//! more packet, which takes it over. When something goes wrong with several together, each goes
//! alone, so that the error of one is not the others'.

use std::time::Instant;

use super::attempt::{Attempt, Sharing};
use super::operation::{Answer, Operation, StoreError};
use super::packet::Statements;
use super::{BATCH_TIMEOUT, Store};
use crate::db::ConnectionId;
use crate::db::{Connection, ErrorKind, Packet, PacketError, cause};
use crate::lease::Read;
use crate::metrics::METRICS;

/// Why a round ended before every operation had its answer.
enum Interrupted {
    /// Worth another round.
    Again(String),
    /// The database does not answer, to anybody.
    DatabaseDown(String),
    /// The same would happen again.
    Refused(String),
}

impl Store {
    /// Runs the operations, in one transaction as long as nothing gets in their way, and answers
    /// each in its place.
    pub fn run(&self, operations: &[Operation]) -> Vec<Result<Answer, StoreError>> {
        let statements = match self.statements() {
            Ok(statements) => statements,
            Err(error) => return operations.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut attempts: Vec<_> = operations.iter().map(Attempt::new).collect();
        let mut round =
            Round { store: self, statements, until: Instant::now() + BATCH_TIMEOUT, lost: None };
        let cause = round.run_all(&mut attempts);
        let answers = attempts.into_iter();
        answers.map(|attempt| attempt.finish(&cause)).collect()
    }
}

/// What the rounds of one batch share.
struct Round<'s> {
    store: &'s Store,
    statements: &'s Statements,
    until: Instant,
    /// The connection that was lost in the middle of a write, until it is known to have ended.
    lost: Option<ConnectionId>,
}

impl Round<'_> {
    /// Rounds until all have their answer, or time is up; what got in the way last.
    fn run_all(&mut self, attempts: &mut [Attempt]) -> String {
        let mut last_cause = String::new();
        while attempts.iter().any(Attempt::is_open) && self.is_in_time() {
            let open = attempts.iter_mut().filter(|attempt| attempt.is_open());
            let (mut alone, together): (Vec<_>, Vec<_>) =
                open.partition(|attempt| attempt.sharing == Sharing::Nothing);
            // The table of messages may be what is in the way: those without one go first.
            alone.sort_by_key(|attempt| attempt.operation.message_id().is_some());
            let groups = alone.into_iter().map(|attempt| vec![attempt]);
            for mut group in [together].into_iter().chain(groups) {
                // Each alone may take long to see that the database hangs.
                if group.is_empty() || !self.is_in_time() {
                    continue;
                }
                match self.run(&mut group) {
                    Ok(()) => {}
                    Err(Interrupted::Again(cause)) => last_cause = cause,
                    Err(Interrupted::DatabaseDown(cause)) => return cause,
                    Err(Interrupted::Refused(cause)) => {
                        refuse(&mut group, &cause);
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

    /// One connection, and the packets that these operations need, until all have their answer.
    fn run(&mut self, attempts: &mut [&mut Attempt]) -> Result<(), Interrupted> {
        let health = self.store.database.health();
        health.wait_until_up(self.until).map_err(Interrupted::DatabaseDown)?;
        if let Some(connection) = self.lost {
            let ended = health.wait_until_ended(connection, self.until);
            ended.map_err(Interrupted::Again)?;
            self.lost = None;
        }
        let mut connection = self.store.database.pooled().map_err(Interrupted::Again)?;
        while self.is_in_time() {
            let mut reading = select(attempts, Attempt::is_reading);
            if !reading.is_empty() {
                read(&mut connection, self.statements, &mut reading)?;
                continue;
            }
            let mut writing = select(attempts, Attempt::is_writing);
            if writing.is_empty() {
                return Ok(());
            }
            self.write(&mut connection, &mut writing)?;
        }
        Ok(())
    }

    /// Runs the packet that these operations need next, and lets each decide from what it read there.
    fn write(
        &mut self,
        connection: &mut Connection,
        attempts: &mut [&mut Attempt],
    ) -> Result<(), Interrupted> {
        let (packet, layout) = self.statements.write_packet(attempts);
        let sent_at = Instant::now();
        // Nothing is decided before the COMMIT, the packet's last reply, has come back.
        let replies = match connection.run(&packet) {
            Ok(replies) => replies,
            Err(failed) => {
                self.statements.ids.confirm([], &layout.new_ids);
                return Err(self.recover(connection, failed, attempts, sent_at));
            }
        };
        if let ([attempt], true) = (&mut *attempts, layout.only_inserts) {
            let row = layout.inserted(&replies);
            attempt.after_insert(row, sent_at);
            self.statements.ids.confirm(row.map(|(key, _)| key), &layout.new_ids);
            return Ok(());
        }
        let reads = match layout.read(attempts, replies, &self.statements.table) {
            Ok(reads) => reads,
            Err(error) => {
                // It is committed all the same.
                for attempt in attempts {
                    attempt.lost(sent_at);
                }
                return Err(Interrupted::Refused(cause(&error)));
            }
        };
        let keys = reads.iter().flatten();
        let keys = keys.filter_map(|read| Some(read.row.as_ref()?.key));
        self.statements.ids.confirm(keys, &layout.new_ids);
        for (attempt, read) in attempts.iter_mut().zip(reads) {
            match read {
                Some(read) => attempt.after_write(read, sent_at),
                None => attempt.lose_among_others(sent_at),
            }
            if attempt.is_writing() && attempt.needs_new_id() {
                self.statements.ids.leap();
            }
        }
        Ok(())
    }

    /// Brings the connection and the operations into a state from which another round is safe.
    fn recover(
        &mut self,
        connection: &mut Connection,
        failed: PacketError,
        attempts: &mut [&mut Attempt],
        sent_at: Instant,
    ) -> Interrupted {
        let PacketError { is_commit, error } = failed;
        let kind = ErrorKind::of(&error);
        let cause = cause(&error);
        // A COMMIT that fails has perhaps taken effect all the same.
        if kind == ErrorKind::ConnectionLost
            || (is_commit && !matches!(kind, ErrorKind::Deadlock | ErrorKind::RowLocked))
        {
            self.lost = Some(connection.give_up());
            for attempt in attempts {
                attempt.lost(sent_at);
            }
            return Interrupted::Again(cause);
        }
        // The transaction may still be open with the earlier rows in it.
        let mut rollback = Packet::default();
        rollback.push("ROLLBACK");
        if connection.run(&rollback).is_err() {
            // It ends with its connection, which may take hours to notice that ours is closed.
            connection.give_up();
            return Interrupted::Again(cause);
        }
        match (kind, attempts) {
            (ErrorKind::Deadlock, attempts) => {
                METRICS.deadlock_retries.inc();
                restart(attempts);
            }
            (ErrorKind::RowLocked, [attempt]) => attempt.fail(StoreError::RowLocked),
            (ErrorKind::RowLocked, attempts) => self.fail_locked(connection, attempts),
            (ErrorKind::NotAllReleased, attempts) => {
                for attempt in attempts {
                    attempt.sharing = attempt.sharing.max(Sharing::Packet);
                }
            }
            _ => {
                // Read-only after a failover, for one: the next connection may reach another server.
                connection.discard();
                return Interrupted::Refused(cause);
            }
        }
        Interrupted::Again(cause)
    }

    /// Ends those of these operations whose row another program holds a lock on. The others begin anew.
    fn fail_locked(&self, connection: &mut Connection, attempts: &mut [&mut Attempt]) {
        let sessions = attempts.iter().map(|attempt| attempt.operation.session());
        let locked = self.statements.locked(connection, sessions);
        for (attempt, is_locked) in attempts.iter_mut().zip(locked) {
            if is_locked {
                attempt.fail(StoreError::RowLocked);
            } else {
                attempt.restart();
            }
        }
    }
}

fn select<'a, 'g, 'o>(
    attempts: &'g mut [&'a mut Attempt<'o>],
    is_meant: fn(&Attempt<'o>) -> bool,
) -> Vec<&'g mut Attempt<'o>> {
    let attempts = attempts.iter_mut().map(|attempt| &mut **attempt);
    attempts.filter(|attempt| is_meant(attempt)).collect()
}

/// Reads the rows of all these operations, in one packet, and lets each decide.
fn read(
    connection: &mut Connection,
    statements: &Statements,
    attempts: &mut [&mut Attempt],
) -> Result<(), Interrupted> {
    let sent_at = Instant::now();
    let (packet, reads) = statements.read_packet(attempts);
    let replies = match connection.run(&packet) {
        Ok(replies) => replies,
        Err(PacketError { error, .. }) => {
            let cause = cause(&error);
            return match (ErrorKind::of(&error), attempts) {
                (ErrorKind::Incomparable, [attempt]) => {
                    // No row can have these ids.
                    attempt.after_read(Read::default(), sent_at);
                    Ok(())
                }
                (ErrorKind::ConnectionLost | ErrorKind::Deadlock, _) => {
                    Err(Interrupted::Again(cause))
                }
                (ErrorKind::ReadOnly, _) => {
                    // The next connection may reach another server.
                    connection.discard();
                    Err(Interrupted::Refused(cause))
                }
                (ErrorKind::RowLocked, [attempt]) => {
                    attempt.fail(StoreError::RowLocked);
                    Err(Interrupted::Again(cause))
                }
                _ => Err(Interrupted::Refused(cause)),
            };
        }
    };
    let reads = reads.read(attempts, replies, &statements.table);
    let reads = reads.map_err(|error| Interrupted::Refused(cause(&error)))?;
    for (attempt, read) in attempts.iter_mut().zip(reads) {
        match read {
            Some(read) => attempt.after_read(read, sent_at),
            None => attempt.restart(),
        }
    }
    Ok(())
}

/// Has each of these begin anew and alone: one of them has an error that is not the others'.
fn restart(attempts: &mut [&mut Attempt]) {
    for attempt in attempts {
        attempt.restart();
    }
}

/// The database said no: to one alone, that is the end. Of several, each is asked alone.
fn refuse(attempts: &mut [&mut Attempt], cause: &str) {
    match attempts {
        [attempt] if attempt.is_open() => attempt.fail(StoreError::Unavailable(cause.to_owned())),
        attempts => {
            for attempt in attempts.iter_mut().filter(|attempt| attempt.is_open()) {
                attempt.restart();
            }
        }
    }
}
