//! The queues of sessions: first come, first served. A waiter takes no worker and no database
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
mod wake;

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::lease::TokenOrigin;
use crate::store::SessionName;
use state::{Progress, State};
pub use turn::{EndedWait, LeaseChange, Ready, Requester, Turn, Waiter};

/// The maximum number of acquires in the queues. With more, an acquire does not wait: its turn grants
/// or refuses it. The HTTP connection of a waiter takes a thread of `tiny_http` and two descriptors:
/// together half of the unit's 8,192.
const QUEUED_MAX: usize = 2_000;

/// A turn that no worker could begin in this time is refused without an attempt. An attempt may
/// take 7 s more, and every request must be answered within 10 s, even if the database is slow and
/// many requests come at once.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

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
    pub fn join(&self, name: &SessionName, mut waiter: Waiter<T>, origin: TokenOrigin) {
        let mut state = self.state.lock();
        if state.queued >= QUEUED_MAX {
            waiter.until = waiter.arrived;
        }
        let queue = state.queue(name);
        let (arrived, may_wait) = (waiter.arrived, waiter.may_wait());
        let is_alone = queue.waiters.is_empty() && queue.progress == Progress::Idle;
        if origin == TokenOrigin::Callers && !is_alone {
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
    pub fn next(&self, limit: usize) -> Vec<Ready<T>> {
        let mut state = self.state.lock();
        let (mut turns, mut left) = (Vec::new(), None);
        while turns.len() < limit
            && let Some((name, since)) = state.ready.pop_front()
        {
            // A blocked session's turn runs alone, because it may wait for a lock.
            let is_blocked = state.is_blocked_turn(&name);
            if is_blocked && !turns.is_empty() {
                left = Some((name, since));
                continue;
            }
            turns.extend(state.begin_turn(name, since));
            if is_blocked && !turns.is_empty() {
                break;
            }
        }
        if let Some(left) = left {
            state.ready.push_front(left);
        }
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

    /// Reports that the turn of this blocked session is over, so that the next one may have its turn.
    pub fn end_blocked_turn(&self, name: &SessionName) {
        self.state.lock().end_blocked_turn(name);
    }

    /// Queues a turn that checks whether the message of a waiter is answered, before the waiter is
    /// refused. Returns the waiter if the service stops.
    pub fn check_message_in_turn(
        &self,
        name: &SessionName,
        ended: EndedWait<T>,
    ) -> Option<EndedWait<T>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Some(ended);
        }
        let until = ended.waiter.until;
        state.queue(name).urgent.push_back((Turn::CheckMessage(ended), until));
        state.make_ready(name, until);
        None
    }

    /// Takes out the waiters of the requester that was just granted the lease: it has repeated its
    /// request.
    pub fn take_same(&self, name: &SessionName, requester: &Requester) -> Vec<Waiter<T>> {
        let mut state = self.state.lock();
        let same = state.queue(name).extract(|waiter| waiter.requester == *requester);
        state.queued -= same.len();
        same
    }

    /// Whether any session is ready for a worker.
    pub fn is_ready(&self) -> bool {
        !self.state.lock().ready.is_empty()
    }

    /// The number of waiters for a session.
    pub fn waiters(&self, name: &SessionName) -> usize {
        let state = self.state.lock();
        state.queues.get(name).map_or(0, |queue| queue.count_waiting(Instant::now()))
    }

    /// The number of acquires in all queues, with `wait_ms` or without.
    pub fn queued(&self) -> usize {
        self.state.lock().queued
    }

    /// Blocks until an acquire waits, a session is parked, or the queues are closed.
    pub fn wait_for_waiters(&self) {
        let is_idle =
            |state: &mut State<T>| state.queued == 0 && state.parked.is_empty() && !state.is_closed;
        self.joined.wait_while(&mut self.state.lock(), is_idle);
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
