//! What this server remembers of the leases it granted, so that their owners' next requests need no
//! look before their write. What is remembered may be out of date: the write is a compare-and-swap
//! on it, and if that fails, the row is looked at as ever.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::lease::{OwnerToken, Session};
use crate::operation::{Look, Operation, Seen};

/// Leases that are remembered: far more than are held at once, in two or three megabytes.
const GRANTS_MAX: usize = 10_000;

/// Leases by their owner tokens.
#[derive(Default)]
pub(crate) struct Grants(Mutex<HashMap<OwnerToken, Grant>>);

struct Grant {
    session: Session,
    row: Seen,
    looked_at: Instant,
}

impl Grants {
    fn lock(&self) -> MutexGuard<'_, HashMap<OwnerToken, Grant>> {
        // Nothing that could panic happens under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the row of a lease as it was seen.
    pub fn note(&self, operation: &Operation, row: Seen, looked_at: Instant) {
        let mut grants = self.lock();
        if grants.len() >= GRANTS_MAX {
            // Their owners crashed, or went to another server.
            grants.retain(|_, grant| grant.row.aged(grant.looked_at).remaining().is_some());
        }
        if let Some(owner_token) = operation.owner_token()
            && grants.len() < GRANTS_MAX
        {
            let grant = Grant {
                session: operation.session().clone(),
                row,
                looked_at,
            };
            grants.insert(owner_token.clone(), grant);
        }
    }

    /// What a look would show, if the operation's lease is remembered and nobody touched it. It is
    /// forgotten with this; who finds it unchanged notes it again.
    pub fn take(&self, operation: &Operation) -> Option<Look> {
        let (Operation::Renew { owner_token, .. }
        | Operation::Commit { owner_token, .. }
        | Operation::Release { owner_token, .. }) = operation
        else {
            return None;
        };
        let grant = self.lock().remove(owner_token)?;
        let is_same = grant.session == *operation.session();
        is_same.then(|| Look {
            row: Some(grant.row.aged(grant.looked_at)),
            record: None,
        })
    }
}
