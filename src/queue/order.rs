//! The order of turns: urgent operations first, then acquires, both in the order of their arrival.

use std::time::Instant;

use super::state::{Progress, State};
use super::turn::{Ready, Turn, Waiter};
use crate::store::{FirstPacket, SessionName};

/// What follows a turn.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum AfterTurn {
    /// Another turn, if an operation needs one.
    Turn,
    /// Nothing, until the session becomes ready again.
    Rest,
}

impl<T> State<T> {
    /// Puts a waiter into its session's queue, in the order of arrival.
    pub fn enqueue(&mut self, name: &SessionName, mut waiter: Waiter<T>) {
        if self.is_closed {
            waiter.until = waiter.arrived;
        }
        let waiters = &mut self.queue(name).waiters;
        let place = waiters.partition_point(|other| other.arrived <= waiter.arrived);
        waiters.insert(place, waiter);
        self.queued += 1;
    }

    pub fn make_ready(&mut self, name: &SessionName, since: Instant) {
        let queue = self.queue(name);
        match queue.progress {
            Progress::Idle => {
                queue.progress = Progress::Ready;
                if self.is_blocked(name) {
                    self.parked.push_back((name.clone(), since, Instant::now()));
                    self.unpark(Instant::now());
                } else {
                    self.ready.push_back((name.clone(), since));
                }
            }
            Progress::Working => queue.progress = Progress::WorkingThenReady,
            Progress::Ready | Progress::WorkingThenReady => {}
        }
    }

    pub fn begin_turn(&mut self, name: SessionName, since: Instant) -> Option<Ready<T>> {
        let queue = self.queue(&name);
        let urgent = queue.urgent.pop_front();
        let acquire = || {
            let waiter = queue.waiters.pop_front()?;
            // If the acquire's wait is over, its turn has been due since then.
            let since = since.min(waiter.until);
            Some((Turn::Acquire(waiter), since))
        };
        let Some((turn, since)) = urgent.or_else(acquire) else {
            queue.progress = Progress::Idle;
            self.remove_if_empty(&name);
            self.end_blocked_turn(&name);
            return None;
        };
        queue.progress = Progress::Working;
        if matches!(turn, Turn::Acquire(_)) {
            self.queued -= 1;
        }
        let first_packet = if self.was_blocked_recently() {
            FirstPacket::Read
        } else {
            self.known_leases.first_packet(&name)
        };
        let is_blocked = self.is_blocked_turn(&name);
        Some(Ready { name, turn, since, first_packet, is_blocked })
    }

    pub fn end_turn(&mut self, name: &SessionName, next: AfterTurn) {
        let queue = self.queue(name);
        let again = queue.progress == Progress::WorkingThenReady || next == AfterTurn::Turn;
        let has_turns = !queue.urgent.is_empty() || !queue.waiters.is_empty();
        queue.progress = Progress::Idle;
        if again && has_turns {
            self.make_ready(name, Instant::now());
        } else {
            self.remove_if_empty(name);
        }
    }
}
