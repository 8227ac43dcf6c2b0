//! What this server remembers of the leases it granted, so that their owners' next requests need no
//! look before their write. What is remembered may be out of date: the write is a compare-and-swap
//! on it, and if that fails, the row is looked at as ever.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lease::{OwnerToken, Session};
use crate::operation::{Look, Operation, Seen};

/// Leases that are remembered: far more than are held at once, in two or three megabytes.
const GRANTS_MAX: usize = 10_000;

/// Expired leases are forgotten once in so long, if there is no room for another: their owners
/// crashed, or went to another server.
const FORGET_PERIOD: Duration = Duration::from_secs(1);

/// Leases by their owner tokens.
#[derive(Default)]
pub(crate) struct Grants(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    grants: HashMap<OwnerToken, Grant>,
    forgot_at: Option<Instant>,
}

struct Grant {
    session: Session,
    row: Seen,
    looked_at: Instant,
}

impl Grants {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Nothing that could panic happens under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the row of a lease as it was seen.
    pub fn note(&self, operation: &Operation, row: Seen, looked_at: Instant) {
        let Memory { grants, forgot_at } = &mut *self.lock();
        if grants.len() >= GRANTS_MAX && forgot_at.is_none_or(|at| at.elapsed() > FORGET_PERIOD) {
            let now = Instant::now();
            grants.retain(|_, Grant { row, looked_at, .. }| {
                row.remaining().is_some_and(|left| *looked_at + left > now)
            });
            *forgot_at = Some(now);
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
        let grant = self.lock().grants.remove(owner_token)?;
        let is_same = grant.session == *operation.session();
        is_same.then(|| Look {
            row: Some(grant.row.aged(grant.looked_at)),
            record: None,
        })
    }
}
