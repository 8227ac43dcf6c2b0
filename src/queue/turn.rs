//! Waiters, and the turns that workers take.

use std::time::Instant;

use crate::lease::{Holding, MessageId, OwnerToken};
use crate::store::{FirstPacket, SessionName};

/// Who requests a lease, and for which message. A repeated request has the same requester.
#[derive(PartialEq)]
pub struct Requester {
    pub owner_token: OwnerToken,
    pub message_id: Option<MessageId>,
}

/// An acquire in its session's queue. `T` is what a worker needs to serve and answer it.
pub struct Waiter<T> {
    pub requester: Requester,
    pub arrived: Instant,
    pub until: Instant,
    pub pending: T,
}

impl<T> Waiter<T> {
    /// Whether the acquire may wait. If not, the next turn answers it, so the timer need not be
    /// woken: the wake-up would cost more than everything else in the queue.
    pub(super) fn may_wait(&self) -> bool {
        self.until > self.arrived
    }
}

/// A waiter whose wait is over, and the holder of the session.
pub struct EndedWait<T> {
    pub waiter: Waiter<T>,
    pub holding: Holding,
    pub waiters: usize,
}

/// The next thing to do for a session.
pub enum Turn<T> {
    /// Run an operation other than an acquire, which does not wait behind acquires.
    Other(T),
    /// Find out whether the waiter already holds the session, before it enters the queue.
    Find(Waiter<T>),
    /// Find out whether the waiter's message is answered, before it is refused.
    CheckMessage(EndedWait<T>),
    /// Acquire for the first waiter.
    Acquire(Waiter<T>),
}

impl<T> Turn<T> {
    /// What a worker needs to serve and answer it.
    pub fn pending(&self) -> &T {
        match self {
            Self::Other(pending) => pending,
            Self::Find(waiter) | Self::Acquire(waiter) => &waiter.pending,
            Self::CheckMessage(ended) => &ended.waiter.pending,
        }
    }

    pub fn into_pending(self) -> T {
        match self {
            Self::Other(pending) => pending,
            Self::Find(waiter) | Self::Acquire(waiter) => waiter.pending,
            Self::CheckMessage(ended) => ended.waiter.pending,
        }
    }
}

/// A turn for a worker.
pub struct Ready<T> {
    pub name: SessionName,
    pub turn: Turn<T>,
    /// Since when the turn has been due.
    pub since: Instant,
    pub first_packet: FirstPacket,
    /// Whether another program was recently found to hold a database lock on the session's row.
    /// Such a turn runs alone.
    pub is_blocked: bool,
}

/// What an operation did to a session's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    Ended,
    Renewed(Instant),
    /// The rows must be read again to find out.
    Unknown,
}
