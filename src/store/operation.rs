//! The operations on leases, their answers and errors.

use std::fmt;

use crate::db::cause;
use crate::lease::{
    Acquire, Acquired, Commit, Committed, Force, Forced, Holding, MessageId, OwnerToken, Release,
    Released, Renew, Renewed, Session,
};

/// An operation on one session's lease.
#[derive(Clone, Debug)]
pub enum Operation {
    Acquire(Acquire, FirstPacket),
    /// Find out whether the owner token already holds the session, or whether the message is
    /// answered.
    Find(Acquire),
    Renew(Renew),
    Commit(Commit),
    Release(Release),
    Force(Force),
    Read(Session),
}

/// How an acquire begins. The answer does not depend on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPacket {
    /// With a write: the session is probably free.
    Write,
    /// With a read: the session is probably held. A read locks nothing and costs the database half
    /// as much as a write that changes nothing.
    Read,
}

impl Operation {
    pub fn session(&self) -> &Session {
        match self {
            Self::Acquire(acquire, _) | Self::Find(acquire) => &acquire.session,
            Self::Commit(commit) => &commit.session,
            Self::Release(release) => &release.session,
            Self::Renew(renew) => &renew.session,
            Self::Force(force) => &force.session,
            Self::Read(session) => session,
        }
    }

    pub fn message_id(&self) -> Option<&MessageId> {
        match self {
            Self::Acquire(acquire, _) | Self::Find(acquire) => acquire.message_id.as_ref(),
            Self::Commit(commit) => Some(&commit.message.id),
            Self::Release(release) => release.message.as_ref().map(|message| &message.id),
            Self::Renew(_) | Self::Force(_) | Self::Read(_) => None,
        }
    }
}

/// The answer to the [`Operation`] of the same name.
#[derive(Clone, Debug)]
pub enum Answer {
    Acquire(Acquired),
    /// A grant or a duplicate, or nothing.
    Find(Option<Acquired>),
    Commit(Committed),
    Release(Released),
    Renew(Renewed),
    Force(Forced),
    Read(Option<Holding>),
}

/// Why there is no answer. No error says who holds a session.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// The database does not answer or refuses the statement; nothing was written. The text is the
    /// cause.
    Unavailable(String),
    /// Another program held a lock on the row or the table for longer than the lock wait timeout;
    /// nothing was written.
    RowLocked,
    IdsExhausted,
    /// The table cannot store an id. The text says which, and why.
    NotStorable(String),
    /// The connection was lost during a write, and the outcome could not be read afterwards. If the
    /// write was an acquire, its owner token follows the cause, so that the requester can repeat it.
    OutcomeUnknown(String, Option<OwnerToken>),
    /// A bug of this program.
    Internal,
}

impl StoreError {
    /// The error of an operation that is not sent because it would only fail as slowly as the one
    /// with this error; `None` if it may succeed.
    pub fn of_unsent(&self) -> Option<Self> {
        match self {
            Self::Unavailable(cause) | Self::OutcomeUnknown(cause, _) => {
                Some(Self::Unavailable(cause.clone()))
            }
            Self::RowLocked => Some(Self::RowLocked),
            Self::IdsExhausted | Self::NotStorable(_) | Self::Internal => None,
        }
    }
}

impl From<mysql::Error> for StoreError {
    fn from(error: mysql::Error) -> Self {
        Self::Unavailable(cause(&error))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(cause) => write!(f, "the database is not available ({cause}); nothing was written, try again"),
            Self::RowLocked => f.write_str(
                "another program holds a database lock on this session's row or on the table; nothing was written, try again",
            ),
            Self::Internal => f.write_str("a bug in session-lock; its log has a line about it"),
            Self::NotStorable(why) => f.write_str(why),
            Self::IdsExhausted => f.write_str(
                "no free id was found in the lock table, whose lowest ids are nearly all taken; nothing was written; \
                 the operator can delete rows that hold nothing any more",
            ),
            Self::OutcomeUnknown(cause, _) => write!(
                f,
                "the database did not confirm the write ({cause}); repeat the same request with the same owner_token"
            ),
        }
    }
}
