//! What this server remembers, so that its writes need no look before them: the leases it granted,
//! for their owners' next requests, and the primary keys of rows it deleted, for new leases. What is
//! remembered may be out of date: each write is a compare-and-swap, and if it fails, the row is
//! looked at as ever.
//!
//! With the key of a row that is gone, a new lease uses no id of the table's counter. So it may be
//! written without a look whether its session is free: if it is not, nothing is written and no id is
//! lost. The counter is above all keys that were ever in the table, so it gives none of them to
//! anybody else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lease::{OwnerToken, Session};
use crate::operation::{Look, Operation, Seen};

/// Leases that are remembered: far more than are held at once, in two or three megabytes.
const GRANTS_MAX: usize = 10_000;

/// Expired leases are forgotten once in so long, if there is no room for another: their owners
/// crashed, or went to another server.
const FORGET_PERIOD: Duration = Duration::from_secs(1);

/// Keys that are remembered: more than are deleted in [`KEY_REST`].
const KEYS_MAX: usize = 10_000;

/// So long after a row's end its key is used again: the database has cleared the row away by then.
/// Before, it would have to revive it, which costs it a tenth of all that a lease does.
const KEY_REST: Duration = Duration::from_millis(300);

/// No acquire goes without a look for so long after a session was not as free as it seemed, or its
/// row was locked. Where other programs or servers hold sessions, too, that happens again and
/// again; each time a row of theirs is locked for a moment, or waited for, and the gap before it.
const CAUTIOUS_FOR: Duration = Duration::from_secs(10);

/// What is remembered.
#[derive(Default)]
pub(crate) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    grants: HashMap<Session, Grant>,
    forgot_at: Option<Instant>,
    /// And since when their rows are gone: the first one's for longest.
    keys: VecDeque<(u64, Instant)>,
    cautious_since: Option<Instant>,
}

struct Grant {
    owner_token: OwnerToken,
    row: Seen,
    looked_at: Instant,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic happens under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the row of a lease as it was seen.
    pub fn note(&self, operation: &Operation, row: Seen, looked_at: Instant) {
        let State {
            grants, forgot_at, ..
        } = &mut *self.lock();
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
                owner_token: owner_token.clone(),
                row,
                looked_at,
            };
            grants.insert(operation.session().clone(), grant);
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
        let grants = &mut self.lock().grants;
        let session = operation.session();
        if grants.get(session)?.owner_token != *owner_token {
            return None;
        }
        let grant = grants.remove(session)?;
        Some(Look {
            row: Some(grant.row.aged(grant.looked_at)),
            record: None,
        })
    }

    /// Whether nobody is known to hold a session.
    pub fn seems_free(&self, session: &Session) -> bool {
        let state = self.lock();
        let is_cautious = state
            .cautious_since
            .is_some_and(|since| since.elapsed() < CAUTIOUS_FOR);
        !is_cautious && !state.grants.contains_key(session)
    }

    /// Has no session seem free for a while.
    pub fn be_cautious(&self) {
        self.lock().cautious_since = Some(Instant::now());
    }

    /// A key for a new row, if there is one that has rested.
    pub fn take_key(&self) -> Option<u64> {
        let keys = &mut self.lock().keys;
        let (_, since) = keys.front()?;
        if since.elapsed() < KEY_REST {
            return None;
        }
        keys.pop_front().map(|(key, _)| key)
    }

    /// Remembers the key of a row that is gone.
    pub fn keep_key(&self, key: u64) {
        let keys = &mut self.lock().keys;
        if keys.len() < KEYS_MAX {
            keys.push_back((key, Instant::now()));
        }
    }
}
