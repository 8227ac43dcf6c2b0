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
use crate::operation::{Look, Operation, Seen, Task};

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

/// Keys in the lowest quarter of what the column can hold are used again. Rows with higher ones would
/// keep the operator, who is warned at half, from starting the counter anew: it falls to a quarter
/// at the worst.
const REUSED_KEYS_SHARE: u64 = 4;

/// For so long after a session was not as free as it seemed, none is taken to be free: where other
/// programs or servers hold sessions, too, that happens again and again, and each time a row of theirs
/// is locked for a moment. And for so long after another program's lock was in the way, no key
/// is used again: on MySQL, whoever waits for a locked row bars the gap before it, where these keys
/// lie.
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
    misled_at: Option<Instant>,
    locked_at: Option<Instant>,
}

struct Grant {
    owner_token: OwnerToken,
    row: Seen,
    looked_at: Instant,
}

/// What is remembered for an operation.
#[derive(Default)]
pub(crate) struct Remembered {
    /// What a look would show, if nobody touched the session meanwhile.
    pub look: Option<Look>,
    /// The key of a row that is gone, for a new one.
    pub key: Option<u64>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic happens under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered for an operation. It is forgotten with this; who finds it unchanged learns
    /// it again.
    pub fn take(&self, operation: &Operation) -> Remembered {
        let mut state = self.lock();
        match operation {
            Operation::Acquire {
                session,
                message_id,
                ..
            } => {
                let key = state.take_key(session);
                // Messages come again once they are answered; that a look finds out at less cost.
                let seems_free =
                    key.is_some() && message_id.is_none() && !is_recent(state.misled_at);
                Remembered {
                    look: seems_free.then(Look::default),
                    key,
                }
            }
            Operation::Renew { owner_token, .. }
            | Operation::Commit { owner_token, .. }
            | Operation::Release { owner_token, .. } => Remembered {
                look: state.take_grant(operation.session(), owner_token),
                key: None,
            },
            _ => Remembered::default(),
        }
    }

    /// Remembers what came of an operation.
    pub fn learn(&self, task: &mut Task, max_key: u64) {
        let mut state = self.lock();
        if task.was_misled() {
            state.misled_at = Some(Instant::now());
        }
        if task.is_locked() {
            state.locked_at = Some(Instant::now());
        }
        if let Some(key) = task.spare_key {
            let rested = Instant::now().checked_sub(KEY_REST);
            let since = rested.unwrap_or_else(Instant::now);
            state.free_keys.push_front((key, since));
        }
        if let Some(key) = task.deleted_key
            && state.used_keys.remove(&key)
            && state.free_keys.len() < KEYS_MAX
        {
            state.free_keys.push_back((key, Instant::now()));
        }
        if let Some(key) = task.inserted_key()
            && key <= max_key / REUSED_KEYS_SHARE
        {
            if state.used_keys.len() >= KEYS_MAX {
                // Most of them are of rows that ended elsewhere.
                state.used_keys.clear();
            }
            state.used_keys.insert(key);
        }
        if let Some((row, looked_at)) = task.lease_row.take() {
            state.note_grant(task.operation, row, looked_at);
        }
    }
}

fn is_recent(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at.elapsed() < CAUTIOUS_FOR)
}

impl State {
    fn take_key(&mut self, session: &Session) -> Option<u64> {
        let (_, since) = self.free_keys.front()?;
        let is_needless = self.grants.contains_key(session);
        if since.elapsed() < KEY_REST || is_needless || is_recent(self.locked_at) {
            return None;
        }
        self.free_keys.pop_front().map(|(key, _)| key)
    }

    fn take_grant(&mut self, session: &Session, owner_token: &OwnerToken) -> Option<Look> {
        if self.grants.get(session)?.owner_token != *owner_token {
            return None;
        }
        let grant = self.grants.remove(session)?;
        Some(Look {
            row: Some(grant.row.aged(grant.looked_at)),
            record: None,
        })
    }

    fn note_grant(&mut self, operation: &Operation, row: Seen, looked_at: Instant) {
        let Self {
            grants, forgot_at, ..
        } = self;
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
}
