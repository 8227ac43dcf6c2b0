//! The handling of a failed packet of a batch: a retry, each operation alone, or an error.

use std::time::Instant;

use super::StoreError;
use super::attempt::{Attempt, Sharing, restart};
use super::batch::{Batch, Interrupted};
use crate::db::{Connection, ErrorKind, Packet, PacketError, cause};
use crate::metrics::METRICS;

impl Batch<'_> {
    /// After a failed write, brings the connection and the operations into a state from which
    /// another round is safe.
    pub(super) fn recover(
        &mut self,
        connection: &mut Connection,
        failed: PacketError,
        attempts: &mut [&mut Attempt],
        sent_at: Instant,
    ) -> Interrupted {
        let PacketError { is_commit, error } = failed;
        let kind = ErrorKind::of(&error);
        let cause = cause(&error);
        // A COMMIT that fails may still have taken effect.
        if kind == ErrorKind::ConnectionLost
            || (is_commit && !matches!(kind, ErrorKind::Deadlock | ErrorKind::RowLocked))
        {
            self.lost = Some(connection.give_up());
            for attempt in attempts {
                attempt.mark_lost(sent_at);
            }
            return Interrupted::Again(cause);
        }
        // The transaction may still be open, with the rows that it has written.
        let mut rollback = Packet::default();
        rollback.push("ROLLBACK");
        if connection.run(&rollback).is_err() {
            // The transaction ends with its connection, but the database may take hours to detect
            // that we have closed the connection. So the connection is killed.
            connection.give_up();
            return Interrupted::Again(cause);
        }
        match (kind, attempts) {
            (ErrorKind::Deadlock, attempts) => {
                METRICS.deadlock_retries.inc();
                restart(attempts);
            }
            (ErrorKind::RowLocked, [attempt]) => attempt.fail(StoreError::RowLocked),
            (ErrorKind::RowLocked, attempts) => {
                if !self.fail_locked(connection, attempts) {
                    restart(attempts);
                }
            }
            (ErrorKind::GuardFailed, attempts) => {
                for attempt in attempts {
                    attempt.sharing = attempt.sharing.max(Sharing::Packet);
                }
            }
            _ => {
                // The next connection may reach another server.
                connection.discard();
                return self.inspect_once(kind, cause);
            }
        }
        Interrupted::Again(cause)
    }

    /// Fails the operations on rows that other programs have locked. Returns whether there are any.
    pub(super) fn fail_locked(
        &self,
        connection: &mut Connection,
        attempts: &mut [&mut Attempt],
    ) -> bool {
        let sessions = attempts.iter().map(|attempt| attempt.operation.session());
        let locked = self.statements.locked(connection, sessions);
        for (attempt, is_locked) in attempts.iter_mut().zip(&locked) {
            if *is_locked {
                attempt.fail(StoreError::RowLocked);
            }
        }
        locked.contains(&true)
    }
}
