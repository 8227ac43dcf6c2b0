//! What follows a turn, an expiry or a change of a row: a waiter gets its turn, or its wait ends.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::Queues;
use super::order::AfterTurn;
use super::state::{LastRead, Progress, SessionQueue, State};
use super::turn::{EndedWait, LeaseChange, Waiter};
use crate::lease::{Holding, RowVersion};
use crate::store::SessionName;

impl<T> Queues<T> {
    /// Reports the end of a turn that may have changed who holds the session: the first waiter may
    /// try. Returns how long the lease was held, if it has ended and this server granted it.
    pub fn finish(&self, name: &SessionName, change: LeaseChange) -> Option<Duration> {
        let mut state = self.state.lock();
        let held_for = match change {
            LeaseChange::Ended => state.known_leases.remove(name),
            LeaseChange::Renewed(expires) => {
                state.known_leases.insert(name, expires, None);
                None
            }
            LeaseChange::Unknown => None,
        };
        state.queue(name).last_read = None;
        state.end_turn(name, AfterTurn::Turn);
        held_for
    }

    /// Reports the end of a turn that changed nothing. Another operation may have joined while the
    /// session was ready for this turn, and still needs one.
    pub fn finish_unchanged(&self, name: &SessionName) {
        self.state.lock().end_turn(name, AfterTurn::Turn);
    }

    /// Puts a waiter into its place in the queue after a turn showed that it does not hold the
    /// session.
    pub fn rejoin(&self, name: &SessionName, waiter: Waiter<T>) {
        let mut state = self.state.lock();
        let may_wait = waiter.may_wait();
        state.enqueue(name, waiter);
        state.end_turn(name, AfterTurn::Turn);
        drop(state);
        if may_wait {
            self.joined.notify_all();
        }
    }

    /// Reports the end of an acquire's turn that began at `began` and was granted the lease. Returns
    /// the waiters whose wait is over.
    pub fn finish_granted(
        &self,
        name: &SessionName,
        began: Instant,
        holding: Holding,
    ) -> Vec<EndedWait<T>> {
        let mut state = self.state.lock();
        state.known_leases.insert(name, holding.expires, Some(Instant::now()));
        self.finish_with_holder(state, name, began, holding)
    }

    /// Reports the end of an acquire's turn that began at `began` and found another holder. The
    /// acquire goes back to its place. Returns the waiters whose wait is over; it may be one of them.
    pub fn finish_held(
        &self,
        name: &SessionName,
        acquire: Waiter<T>,
        began: Instant,
        holding: Holding,
    ) -> Vec<EndedWait<T>> {
        let mut state = self.state.lock();
        state.known_leases.insert(name, holding.expires, None);
        state.enqueue(name, acquire);
        self.finish_with_holder(state, name, began, holding)
    }

    fn finish_with_holder(
        &self,
        mut state: MutexGuard<State<T>>,
        name: &SessionName,
        began: Instant,
        holding: Holding,
    ) -> Vec<EndedWait<T>> {
        state.queue(name).last_read = Some(LastRead { began, holding });
        let ended = state.end_waits(name, Instant::now());
        let has_waiters = !state.queue(name).waiters.is_empty();
        state.end_turn(name, AfterTurn::Rest);
        drop(state);
        if has_waiters {
            self.joined.notify_all();
        }
        ended
    }

    /// Reports a failed turn. Returns the waiters that came before it began, and the operations
    /// that were to follow it: they would only fail as slowly.
    pub fn finish_failed(&self, name: &SessionName, began: Instant) -> Vec<T> {
        let mut state = self.state.lock();
        let queue = state.queue(name);
        let failed = queue.extract(|waiter| waiter.arrived < began);
        let urgent = std::mem::take(&mut queue.urgent);
        state.queued -= failed.len();
        state.end_turn(name, AfterTurn::Turn);
        let failed = failed.into_iter().map(|waiter| waiter.pending);
        failed.chain(urgent.into_iter().map(|(turn, _)| turn.into_pending())).collect()
    }

    /// Returns the waiters whose wait is over. Makes sessions ready whose lease has expired or
    /// whose lock must be checked again.
    pub fn tick(&self, now: Instant) -> Vec<EndedWait<T>> {
        let mut state = self.state.lock();
        state.unpark(now);
        let mut ended = Vec::new();
        let names: Vec<_> = state.queues.keys().cloned().collect();
        for name in names {
            ended.extend(state.end_waits(&name, now));
            let queue = state.queue(&name);
            let expired = queue.last_read.as_ref().is_some_and(|read| read.holding.expires <= now);
            if expired && !queue.waiters.is_empty() && queue.progress == Progress::Idle {
                state.make_ready(&name, Instant::now());
            }
            state.remove_if_empty(&name);
        }
        ended
    }

    /// The rows of the sessions that waiters wait for.
    pub fn watched(&self) -> Vec<RowVersion> {
        let state = self.state.lock();
        let idle = state.queues.values().filter(|queue| queue.progress == Progress::Idle);
        let waiting = idle.filter(|queue| !queue.waiters.is_empty());
        waiting.filter_map(|queue| Some(queue.last_read.as_ref()?.holding.row)).collect()
    }

    /// Makes the sessions of these rows ready, because the rows have changed.
    pub fn rows_changed(&self, rows: &[RowVersion]) {
        let rows: HashSet<_> = rows.iter().collect();
        let mut state = self.state.lock();
        let changed = |queue: &SessionQueue<T>| {
            let row = queue.last_read.as_ref().map(|read| read.holding.row);
            queue.progress == Progress::Idle && row.is_some_and(|row| rows.contains(&row))
        };
        let queues = state.queues.iter().filter(|(_, queue)| changed(queue));
        for name in queues.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            state.make_ready(&name, Instant::now());
        }
    }
}
