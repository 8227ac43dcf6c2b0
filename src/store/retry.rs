//! The handling of a failed packet of a batch: a retry, each operation alone, or an error.

use std::time::{Duration, Instant};

use super::StoreError;
use super::attempt::{Attempt, Sharing, restart};
use super::batch::{Batch, Interrupted};
use super::packet::session_values;
use crate::db::{Connection, ErrorKind, Packet, PacketError, cause};
use crate::metrics::METRICS;

/// A check of a row's lock that takes this long has waited for a lock on the table, for which the
/// server waits 1 s (`lock_wait_timeout`). The next checks would wait too, so they are left out, and
/// their rows count as locked.
const LOCK_CHECK_MAX: Duration = Duration::from_millis(900);

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
        if connection.rollback().is_err() {
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

    /// Fails the operations on rows that other programs have locked; does not wait for the locks.
    /// Returns whether there are any.
    pub(super) fn fail_locked(
        &self,
        connection: &mut Connection,
        attempts: &mut [&mut Attempt],
    ) -> bool {
        let (mut any, mut waits) = (false, false);
        for attempt in attempts {
            let is_locked = waits || {
                let mut packet = Packet::default();
                let session = session_values(attempt.operation.session());
                self.statements.try_lock.write(&mut packet, &session);
                let began = Instant::now();
                let result = connection.run_check(&packet);
                waits = began.elapsed() >= LOCK_CHECK_MAX;
                result.is_err_and(|failed| ErrorKind::of(&failed.error) == ErrorKind::RowLocked)
            };
            if is_locked {
                attempt.fail(StoreError::RowLocked);
                any = true;
            }
        }
        any
    }
}
