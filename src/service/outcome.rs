//! What a request is answered with, before it is HTTP.

use crate::lease::{Committed, Forced, Holding, Lease, OwnerToken, Record, Released, Renewed};
use crate::store::{Operation, StoreError};

/// What came of a request.
pub enum Outcome {
    Granted(Lease),
    /// Somebody else holds the session, and so many wait for it.
    Held(Holding, usize),
    /// The message of an acquire is answered.
    Duplicate(Record),
    Renew(Renewed),
    Commit(Committed),
    Release(Released),
    Force(Forced),
    /// The database did not answer, or not in time. A requester whose lease may have been written is
    /// given its owner token, to ask again with.
    Unavailable {
        cause: String,
        owner_token: Option<OwnerToken>,
    },
    Bug,
}

impl From<&StoreError> for Outcome {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Internal => Self::Bug,
            error => Self::Unavailable { cause: error.to_string(), owner_token: None },
        }
    }
}

/// How an outcome gets to whoever asked.
pub type Reply = Box<dyn FnOnce(&Operation, Outcome) + Send>;
