//! Waiters, and the turns that workers take.

use std::time::Instant;

use crate::lease::{Holding, MessageId, OwnerToken};
use crate::store::{FirstPacket, SessionName};

/// Who wants a lease, and for which message. A worker that asks again is the same requester.
#[derive(PartialEq)]
pub struct Requester {
    pub owner_token: OwnerToken,
    pub message_id: Option<MessageId>,
}

/// An acquire in its session's queue: `T` is what is needed to serve and answer it.
pub struct Waiter<T> {
    pub requester: Requester,
    pub arrived: Instant,
    pub until: Instant,
    pub pending: T,
}

impl<T> Waiter<T> {
    /// Whether it may wait. The next turn answers one that may not, so the timer need not be woken for it:
    /// that would cost more than everything else in the queue.
    pub(super) fn may_wait(&self) -> bool {
        self.until > self.arrived
    }
}

/// A waiter whose time is over, and who holds the session.
pub struct Refused<T> {
    pub waiter: Waiter<T>,
    pub holding: Holding,
    pub waiters: usize,
}

/// What is to be done next to a session.
pub enum Turn<T> {
    /// Anything but an acquire: it does not wait behind acquires.
    Direct(T),
    /// Find out whether the waiter holds the session already, before it enters the queue.
    FindOwn(Waiter<T>),
    /// Find out whether the waiter's message is answered, before it is refused.
    Refuse(Refused<T>),
    /// Acquire for the first waiter.
    Acquire(Waiter<T>),
}

impl<T> Turn<T> {
    /// What is needed to serve and answer it.
    pub fn pending(&self) -> &T {
        match self {
            Self::Direct(pending) => pending,
            Self::FindOwn(waiter) | Self::Acquire(waiter) => &waiter.pending,
            Self::Refuse(refused) => &refused.waiter.pending,
        }
    }

    pub fn into_pending(self) -> T {
        match self {
            Self::Direct(pending) => pending,
            Self::FindOwn(waiter) | Self::Acquire(waiter) => waiter.pending,
            Self::Refuse(refused) => refused.waiter.pending,
        }
    }
}

/// A turn for a worker.
pub struct Ready<T> {
    pub name: SessionName,
    pub turn: Turn<T>,
    /// Since when somebody waits for it.
    pub since: Instant,
    pub first_packet: FirstPacket,
    /// Whether another program was found to hold a database lock on the session's row lately. Such a turn
    /// comes alone.
    pub is_blocked: bool,
}

/// What an operation did to a session's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    Ended,
    Renewed(Instant),
    None,
}

/// Which turns go into one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// All that are ready.
    Mixed,
    /// Acquires alone or the rest alone, whichever is first, and what has waited for long. Each
    /// statement costs the database as much as a dozen rows, and one kind needs four instead of six.
    OneKind,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Acquire,
    Other,
}
