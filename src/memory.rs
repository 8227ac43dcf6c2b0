//! What this server remembers, so that its writes need no look before them: the leases it granted,
//! for their owners' next requests, and the primary keys of rows it deleted, for new leases. What is
//! remembered may be out of date: each write is a compare-and-swap, and if it fails, the row is
//! looked at as ever.
//!
//! With the key of a row that is gone, a new lease uses no id of the table's counter. So it may be
//! written without a look whether its session is free: if it is not, nothing is written and no id is
//! lost. The counter is above all keys that it gave, so it gives them to nobody else; only after a reset
//! could it reach one just as it is used here. Rows that other programs inserted do not count: these may know
//! their keys still.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lease::{OwnerToken, Session};
use crate::operation::{Look, Operation, Seen};

/// Leases that are remembered: far more than are held at once, in two or three megabytes.
const GRANTS_MAX: usize = 10_000;

/// Expired leases are forgotten once in so long, if there is no room for another: their owners
/// crashed, or went to another server.
const FORGET_PERIOD: Duration = Duration::from_secs(1);

/// Keys that are remembered, of rows that are there and that are gone, each: more than are deleted
/// in [`KEY_REST`].
const KEYS_MAX: usize = 10_000;

/// So long after a row's end its key is used again: most of the time the database has cleared the
/// row away by then. Before, it has to revive it, which costs it a tenth of all that a lease does.
const KEY_REST: Duration = Duration::from_millis(300);

/// No acquire goes without a look for so long after a session was not as free as it seemed, or its
/// row was locked. Where other programs or servers hold sessions, too, that happens again and
/// again; each time a row of theirs is locked for a moment, or waited for, and the gap before it.
const CAUTIOUS_FOR: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Default)]
pub(crate) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    grants: HashMap<Session, Grant>,
    forgot_at: Option<Instant>,
    /// Of rows that were inserted here, and may be there still.
    used_keys: HashSet<u64>,
    /// Of those that are gone, and since when: the first one's for longest.
    free_keys: VecDeque<(u64, Instant)>,
    cautious_since: Option<Instant>,
    locked_since: Option<Instant>,
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
            && (grants.len() < GRANTS_MAX || grants.contains_key(operation.session()))
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

    /// A key for a session's new row, if none of its rows is remembered, and one has rested. None for
    /// a while after a row was locked: whoever waits for it on MySQL bars the gap before it to others.
    pub fn take_key(&self, session: &Session) -> Option<u64> {
        let state = &mut *self.lock();
        if state
            .locked_since
            .is_some_and(|since| since.elapsed() < CAUTIOUS_FOR)
        {
            return None;
        }
        let (_, since) = state.free_keys.front()?;
        if since.elapsed() < KEY_REST || state.grants.contains_key(session) {
            return None;
        }
        state.free_keys.pop_front().map(|(key, _)| key)
    }

    /// Whether a session of which nothing is remembered may be taken to be free.
    pub fn may_guess(&self) -> bool {
        let since = self.lock().cautious_since;
        since.is_none_or(|since| since.elapsed() >= CAUTIOUS_FOR)
    }

    /// Allows no guesses for a while.
    pub fn be_cautious(&self) {
        self.lock().cautious_since = Some(Instant::now());
    }

    /// Uses no keys again for a while.
    pub fn avoid_gaps(&self) {
        self.lock().locked_since = Some(Instant::now());
    }

    /// Takes back a key that was not used.
    pub fn return_key(&self, key: u64) {
        let rested = Instant::now().checked_sub(KEY_REST);
        let since = rested.unwrap_or_else(Instant::now);
        self.lock().free_keys.push_front((key, since));
    }

    /// Remembers the key of a row that was inserted here.
    pub fn inserted(&self, key: u64) {
        let used_keys = &mut self.lock().used_keys;
        if used_keys.len() >= KEYS_MAX {
            // Most of them are of rows that ended elsewhere.
            used_keys.clear();
        }
        used_keys.insert(key);
    }

    /// Remembers that a row is gone.
    pub fn deleted(&self, key: u64) {
        let State {
            used_keys,
            free_keys,
            ..
        } = &mut *self.lock();
        if used_keys.remove(&key) && free_keys.len() < KEYS_MAX {
            free_keys.push_back((key, Instant::now()));
        }
    }
}
