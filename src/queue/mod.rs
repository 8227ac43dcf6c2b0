//! The queues of sessions: first come, first served. A waiter takes no thread and no database
//! connection.
//!
//! Every operation on a session passes through the session's queue in [`Queues`], one turn at a
//! time. Renews, commits and releases go first, in the order of their arrival. Acquires wait in the
//! order of their arrival, with `wait_ms` or without, so that no acquire overtakes another: the
//! first one tries to acquire. If its turn finds the session held, all acquires whose wait is over
//! are refused. A session becomes ready for a turn when an operation joins its queue, after a
//! release, when the lease that was read expires, and when its row changes.
//!
//! If another program holds a database lock on a session's row, the session is blocked: its turns
//! are parked and repeated, one blocked session at a time. They check for the lock before they
//! write, so that workers do not wait for it.

mod blocked;
mod known_leases;
mod order;
mod state;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::lease::{Holding, RowVersion, TokenOrigin};
use crate::store::SessionName;
use order::AfterTurn;
use state::{LastRead, Progress, SessionQueue, State};
pub use turn::{Batching, LeaseChange, Ready, Refused, Requester, Turn, Waiter};

/// The maximum number of waiters of one server; any further acquire is refused without waiting.
/// Each waiter has its own connection, with a thread and two descriptors: together half of the
/// unit's 8,192.
const WAITERS_MAX: usize = 2_000;

/// A turn that no worker could begin in this time is refused without an attempt. An attempt may
/// take 7 s more, and every request must be answered within 10 s, even if the database is slow and
/// many requests come at once.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a turn of the other kind may be left for the next batch. A batch takes some
/// milliseconds. If batches take longer than this, another batch could exceed the turn's timeout.
const LEAVE_MAX: Duration = Duration::from_millis(100);

/// The queues of all sessions of this server.
pub struct Queues<T> {
    state: Mutex<State<T>>,
    /// Signals that an acquire waits or that a session is parked.
    joined: Condvar,
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self { state: Mutex::default(), joined: Condvar::new() }
    }
}

impl<T> Queues<T> {
    /// Adds an operation on a session that does not wait behind acquires.
    pub fn submit(&self, name: &SessionName, pending: T, arrived: Instant) {
        let mut state = self.state.lock();
        state.queue(name).urgent.push_back((Turn::Other(pending), arrived));
        state.make_ready(name, arrived);
    }

    /// Joins the end of a session's queue. A requester with its own token may already hold the
    /// session. In that case, it does not wait behind the waiters.
    pub fn join(&self, name: &SessionName, mut waiter: Waiter<T>, token: TokenOrigin) {
        let mut state = self.state.lock();
        if state.queued >= WAITERS_MAX {
            waiter.until = waiter.arrived;
        }
        let queue = state.queue(name);
        let (arrived, may_wait) = (waiter.arrived, waiter.may_wait());
        let is_alone = queue.waiters.is_empty() && queue.progress == Progress::Idle;
        if token == TokenOrigin::Callers && !is_alone {
            queue.urgent.push_back((Turn::Find(waiter), arrived));
        } else {
            state.enqueue(name, waiter);
        }
        state.make_ready(name, arrived);
        drop(state);
        if may_wait {
            self.joined.notify_all();
        }
    }

    /// The next turns, at most `limit`. No session has a second turn before the end of the first is
    /// reported.
    pub fn next(&self, batching: Batching, limit: usize) -> Vec<Ready<T>> {
        let mut state = self.state.lock();
        let (mut batch_kind, mut turns, mut left) = (None, Vec::new(), VecDeque::new());
        while turns.len() < limit
            && let Some((name, since)) = state.ready.pop_front()
        {
            if state.is_blocked_turn(&name) {
                // The turn runs alone, because it may wait for a lock.
                if !turns.is_empty() {
                    left.push_back((name, since));
                } else if let Some(ready) = state.begin_turn(name, since) {
                    turns.push(ready);
                    break;
                }
                continue;
            }
            let (kind, waits_since) = state.front(&name, since);
            let is_other = batch_kind.is_some_and(|batch_kind| batch_kind != kind);
            if batching == Batching::OneKind && is_other && waits_since.elapsed() < LEAVE_MAX {
                left.push_back((name, since));
            } else if let Some(ready) = state.begin_turn(name, since) {
                batch_kind.get_or_insert(kind);
                turns.push(ready);
            }
        }
        left.append(&mut state.ready);
        state.ready = left;
        turns
    }

    /// Parks a turn that another program's lock has blocked. The turn is repeated later, and its
    /// wait still counts from `since`. Returns the turn if the service stops.
    pub fn park(&self, name: &SessionName, turn: Turn<T>, since: Instant) -> Option<Turn<T>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Some(turn);
        }
        match turn {
            Turn::Acquire(waiter) => state.enqueue(name, waiter),
            turn => state.queue(name).urgent.push_front((turn, since)),
        }
        state.park(name, since);
        drop(state);
        self.joined.notify_all();
        None
    }

    /// Reports that no other program's lock blocked the turn of a blocked session.
    pub fn unblock(&self, name: &SessionName) {
        self.state.lock().unblock(name);
    }

    /// Reports that the turn of a blocked session is over, so that the next one may have its turn.
    pub fn end_blocked_turn(&self) {
        self.state.lock().end_blocked_turn();
    }

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
            LeaseChange::None => None,
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

    /// Queues a turn that checks whether the message of a waiter is answered, before the waiter is
    /// refused. Returns the waiter if the service
    /// stops.
    pub fn check_message_in_turn(
        &self,
        name: &SessionName,
        refused: Refused<T>,
    ) -> Option<Refused<T>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Some(refused);
        }
        let until = refused.waiter.until;
        state.queue(name).urgent.push_back((Turn::CheckMessage(refused), until));
        state.make_ready(name, until);
        None
    }

    /// Reports the end of an acquire's turn that began at `began` and was granted the lease. Returns
    /// the waiters whose wait is over.
    pub fn finish_granted(
        &self,
        name: &SessionName,
        began: Instant,
        holding: Holding,
    ) -> Vec<Refused<T>> {
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
    ) -> Vec<Refused<T>> {
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
    ) -> Vec<Refused<T>> {
        state.queue(name).last_read = Some(LastRead { began, holding });
        let refused = state.refuse(name, Instant::now());
        let has_waiters = !state.queue(name).waiters.is_empty();
        state.end_turn(name, AfterTurn::Rest);
        drop(state);
        if has_waiters {
            self.joined.notify_all();
        }
        refused
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

    /// Takes out the waiters of the requester that was just granted the lease: the same worker has
    /// repeated its request.
    pub fn take_same(&self, name: &SessionName, requester: &Requester) -> Vec<Waiter<T>> {
        let mut state = self.state.lock();
        let same = state.queue(name).extract(|waiter| waiter.requester == *requester);
        state.queued -= same.len();
        same
    }

    /// Returns the waiters whose wait is over. Makes sessions ready whose lease has expired or
    /// whose lock must be checked again.
    pub fn tick(&self, now: Instant) -> Vec<Refused<T>> {
        let mut state = self.state.lock();
        state.unpark(now);
        let mut refused = Vec::new();
        let names: Vec<_> = state.queues.keys().cloned().collect();
        for name in names {
            refused.extend(state.refuse(&name, now));
            let queue = state.queue(&name);
            let expired = queue.last_read.as_ref().is_some_and(|read| read.holding.expires <= now);
            if expired && !queue.waiters.is_empty() && queue.progress == Progress::Idle {
                state.make_ready(&name, Instant::now());
            }
            state.remove_if_empty(&name);
        }
        refused
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

    /// Whether any session is ready for a worker.
    pub fn is_ready(&self) -> bool {
        !self.state.lock().ready.is_empty()
    }

    /// The number of waiters for a session.
    pub fn waiters(&self, name: &SessionName) -> usize {
        let state = self.state.lock();
        state.queues.get(name).map_or(0, |queue| queue.waiting(Instant::now()))
    }

    /// The number of acquires in all queues, with `wait_ms` or without.
    pub fn waiting(&self) -> usize {
        self.state.lock().queued
    }

    /// Blocks, for at most `timeout`, until an acquire waits or a session is parked. Returns
    /// whether one does.
    pub fn wait_for_waiters(&self, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        let has_waiters = |state: &State<T>| state.queued > 0 || !state.parked.is_empty();
        let is_idle = |state: &mut State<T>| !has_waiters(state) && !state.is_closed;
        self.joined.wait_while_for(&mut state, is_idle, timeout);
        has_waiters(&state)
    }

    /// Closes the queues. Returns every operation that has not begun.
    pub fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.queued = 0;
        state.parked.clear();
        let mut pending = Vec::new();
        for queue in state.queues.values_mut() {
            pending.extend(queue.waiters.drain(..).map(|waiter| waiter.pending));
            pending.extend(queue.urgent.drain(..).map(|(turn, _)| turn.into_pending()));
        }
        drop(state);
        self.joined.notify_all();
        pending
    }
}
