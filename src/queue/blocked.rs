//! Sessions on whose rows another program holds a database lock. Their turns are parked and repeated,
//! one blocked session at a time.

use std::time::{Duration, Instant};

use super::state::{Progress, State};
use crate::store::SessionName;

/// How long a session stays blocked after another program was last found to hold a lock on its row.
/// In this time, each turn begins with a check of the lock, and not with a wait of a second.
const BLOCKED_FOR: Duration = Duration::from_secs(10);

/// Interval between checks of a blocked session's lock.
const BLOCKED_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long all acquires begin with a read after another program's lock has blocked a turn. On
/// MySQL, an INSERT that waits for a row's lock also locks the gap before the row in the index,
/// where other sessions would be inserted. A read waits for no lock, and the row that it finds is
/// replaced by its primary key, which locks no gap.
const READ_FIRST_FOR: Duration = Duration::from_secs(60);

impl<T> State<T> {
    /// Sets a blocked session aside until its lock is checked again.
    pub fn park(&mut self, name: &SessionName, since: Instant) {
        let now = Instant::now();
        self.blocked_at = Some(now);
        self.blocked.retain(|_, until| *until > now);
        self.blocked.insert(name.clone(), now + BLOCKED_FOR);
        self.queue(name).progress = Progress::Ready;
        self.parked.push_back((name.clone(), since, now + BLOCKED_RETRY_INTERVAL));
    }

    /// Makes the next parked session ready whose lock must be checked again, if no other blocked
    /// session has a turn.
    pub fn unpark(&mut self, now: Instant) {
        if self.blocked_turn.is_some() {
            return;
        }
        let due = self.parked.iter().position(|(_, _, retry_at)| *retry_at <= now);
        if let Some((name, since, _)) = due.and_then(|at| self.parked.remove(at)) {
            self.blocked_turn = Some(name.clone());
            self.ready.push_back((name, since));
        }
    }

    /// Ends the turn of this blocked session, if it has the turn. A session that is no longer blocked
    /// may have had another turn meanwhile.
    pub fn end_blocked_turn(&mut self, name: &SessionName) {
        if self.is_blocked_turn(name) {
            self.blocked_turn = None;
            self.unpark(Instant::now());
        }
    }

    /// Whether this session, which is ready, is the blocked session that has the turn.
    pub fn is_blocked_turn(&self, name: &SessionName) -> bool {
        self.blocked_turn.as_ref() == Some(name)
    }

    pub fn unblock(&mut self, name: &SessionName) {
        self.blocked.remove(name);
    }

    /// Whether another program held a lock on the session's row recently.
    pub fn is_blocked(&self, name: &SessionName) -> bool {
        // The map is nearly always empty, which is cheaper to check than a name.
        !self.blocked.is_empty()
            && self.blocked.get(name).is_some_and(|until| *until > Instant::now())
    }

    /// Whether all acquires should begin with a read.
    pub fn was_blocked_recently(&self) -> bool {
        self.blocked_at.is_some_and(|at| at.elapsed() < READ_FIRST_FOR)
    }
}
