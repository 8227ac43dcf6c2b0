//! Handles the store's answer in a turn: answers the requester, and updates the session's queue.

use std::time::Instant;

use super::{Outcome, Pending, Service};
use crate::lease::{Acquired, How, Lease, Released, Renewed};
use crate::metrics::METRICS;
use crate::queue::{EndedWait, LeaseChange, Turn, Waiter};
use crate::store::{Answer, SessionName, StoreError};

impl Service {
    /// Answers a turn that began at `began`, and reports its result to the queue.
    pub(super) fn finish(
        &self,
        name: &SessionName,
        turn: Turn<Pending>,
        began: Instant,
        answer: Result<Answer, StoreError>,
    ) {
        match (turn, answer) {
            (Turn::Other(pending), Ok(answer)) => {
                let held_for = self.queues.finish(name, change(&answer));
                if let (Answer::Release(Released::Released), Some(held_for)) = (&answer, held_for) {
                    METRICS.hold.observe(held_for.as_secs_f64());
                }
                pending.answer(outcome(answer));
            }
            (Turn::Find(waiter), Ok(answer)) => match found(answer) {
                Some(outcome) => {
                    self.queues.finish_unchanged(name);
                    waiter.pending.answer(outcome);
                }
                None => self.queues.rejoin(name, waiter),
            },
            (Turn::CheckMessage(ended), Ok(answer)) => {
                self.queues.finish_unchanged(name);
                let EndedWait { waiter, holding, waiters } = ended;
                waiter.pending.answer(found(answer).unwrap_or(Outcome::Held(holding, waiters)));
            }
            (Turn::Acquire(waiter), Ok(answer)) => self.finish_acquire(name, waiter, began, answer),
            (turn, Err(error)) => self.finish_failed(name, turn, began, error),
        }
    }

    fn finish_acquire(
        &self,
        name: &SessionName,
        waiter: Waiter<Pending>,
        began: Instant,
        answer: Answer,
    ) {
        match answer {
            Answer::Acquire(Acquired::Granted(lease)) => {
                METRICS.wait.observe(waiter.arrived.elapsed().as_secs_f64());
                let same = self.queues.take_same(name, &waiter.requester);
                let ended = self.queues.finish_granted(name, began, lease.holding());
                waiter.pending.answer(Outcome::Granted(lease.clone()));
                for waiter in same {
                    let again = Lease { how: How::Again, ..lease.clone() };
                    waiter.pending.answer(Outcome::Granted(again));
                }
                self.answer_held(ended);
            }
            Answer::Acquire(Acquired::Held(holding)) => {
                self.answer_held(self.queues.finish_held(name, waiter, began, holding));
            }
            answer => {
                self.queues.finish(name, LeaseChange::Unknown);
                waiter.pending.answer(outcome(answer));
            }
        }
    }

    /// Refuses waiters whose wait is over. For a waiter with a message, another turn first finds
    /// out whether the message is answered.
    pub(super) fn answer_held(&self, ended: Vec<EndedWait<Pending>>) {
        for ended in ended {
            if ended.waiter.requester.message_id.is_none() {
                let EndedWait { waiter, holding, waiters } = ended;
                waiter.pending.answer(Outcome::Held(holding, waiters));
                continue;
            }
            let name = ended.waiter.pending.name.clone();
            if let Some(ended) = self.queues.check_message_in_turn(&name, ended) {
                ended.waiter.pending.answer(Outcome::Stopping);
            }
        }
    }

    /// Fails a turn, and those other turns of its session that would only fail as slowly, one after
    /// the other.
    fn finish_failed(
        &self,
        name: &SessionName,
        turn: Turn<Pending>,
        began: Instant,
        error: StoreError,
    ) {
        if let Some(of_others) = error.of_unsent() {
            for pending in self.queues.finish_failed(name, began) {
                pending.answer(Outcome::Failed(of_others.clone()));
            }
        } else {
            self.queues.finish_unchanged(name);
        }
        turn.into_pending().answer(Outcome::Failed(error));
    }
}

/// The change that an operation made to the lease.
fn change(answer: &Answer) -> LeaseChange {
    match answer {
        Answer::Release(Released::Released) | Answer::Force(_) => LeaseChange::Ended,
        Answer::Renew(Renewed::Renewed { expires, .. }) => LeaseChange::Renewed(*expires),
        _ => LeaseChange::Unknown,
    }
}

/// The outcome of an acquire after a turn that only read, if the rows give one.
fn found(answer: Answer) -> Option<Outcome> {
    match answer {
        Answer::Find(Some(Acquired::Granted(lease))) => Some(Outcome::Granted(lease)),
        Answer::Find(Some(Acquired::Duplicate(record))) => Some(Outcome::Duplicate(record)),
        _ => None,
    }
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Acquire(Acquired::Duplicate(record)) => Outcome::Duplicate(record),
        Answer::Renew(renewed) => Outcome::Renew(renewed),
        Answer::Commit(committed) => Outcome::Commit(committed),
        Answer::Release(released) => Outcome::Release(released),
        Answer::Force(forced) => Outcome::Force(forced),
        Answer::Acquire(_) | Answer::Find(_) | Answer::Read(_) => {
            Outcome::Failed(StoreError::Internal)
        }
    }
}
