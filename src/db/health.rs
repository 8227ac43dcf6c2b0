//! Whether the database answers. While it does not, requests are refused at once instead of each
//! waiting for a timeout. One thread checks until it answers again, and first ends the connections
//! that were lost in the middle of a write, so that nothing they sent can still take effect.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::metrics::METRICS;

/// A check takes a few milliseconds if the database lives, and requests wait for that. If it takes
/// longer, they are refused.
const SUSPECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two checks of a database that does not answer: recovery is noticed so much later.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// A lost connection is given up after this: the requests that waited for its end were answered long
/// ago.
const KILL_GIVE_UP: Duration = Duration::from_secs(60);

/// How the database knows a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// Which server it is to: after a failover, the address leads to another.
    pub server: u64,
    /// Its number there, until that server restarts.
    pub number: u32,
    pub opened: Instant,
}

/// The database's health.
pub struct Health {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    status: Status,
    since: Instant,
    /// Connections that were lost in the middle of a write, and when.
    lost: Vec<(ConnectionId, Instant)>,
    /// Connections that were opened before this may be as dead as the one that timed out.
    trusted_since: Instant,
}

enum Status {
    Up,
    /// Something went wrong with a connection; a check is due.
    Suspect,
    /// The database does not answer, and the cause.
    Down(String),
}

impl State {
    fn is_well(&self) -> bool {
        matches!(self.status, Status::Up) && self.lost.is_empty()
    }
}

impl Default for Health {
    fn default() -> Self {
        let now = Instant::now();
        let state = State { status: Status::Up, since: now, lost: Vec::new(), trusted_since: now };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic happens under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection failed or could not be had: the database itself may be gone.
    pub fn suspect(&self) {
        let mut state = self.lock();
        if matches!(state.status, Status::Up) {
            state.status = Status::Suspect;
            state.since = Instant::now();
            self.changed.notify_all();
        }
    }

    /// As [`Health::suspect`], and all older connections may be dead, too.
    pub fn suspect_all_connections(&self) {
        self.lock().trusted_since = Instant::now();
        self.suspect();
    }

    /// Connections that were opened before this must not be used.
    pub fn trusted_since(&self) -> Instant {
        self.lock().trusted_since
    }

    /// A connection was lost in the middle of a write, and must be ended.
    pub fn add_lost(&self, connection: ConnectionId) {
        self.lock().lost.push((connection, Instant::now()));
        self.suspect();
    }

    /// Waits until the database is known to answer, at most until `until`.
    ///
    /// # Errors
    /// The cause, if the database does not answer.
    pub fn wait_until_up(&self, until: Instant) -> Result<(), String> {
        let mut state = self.lock();
        loop {
            let cause = match &state.status {
                Status::Up => return Ok(()),
                Status::Suspect => "it does not answer",
                Status::Down(cause) => cause,
            };
            let until = until.min(state.since + SUSPECT_TIMEOUT);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(cause.to_owned());
            }
            state = self.wait(state, left);
        }
    }

    /// Waits until a lost connection is known to have ended.
    ///
    /// # Errors
    /// If it has not ended by then.
    pub fn wait_until_ended(&self, connection: ConnectionId, until: Instant) -> Result<(), String> {
        let mut state = self.lock();
        while state.lost.iter().any(|(lost, _)| *lost == connection) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("a lost connection has not ended".to_owned());
            }
            state = self.wait(state, left);
        }
        Ok(())
    }

    /// The cause, while the database does not answer.
    pub fn cause(&self) -> Option<String> {
        match &self.lock().status {
            Status::Down(cause) => Some(cause.clone()),
            Status::Up | Status::Suspect => None,
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until a check is due, at most `timeout`, and checks once: `connect` finds out whether the
    /// database answers, and `kill` ends lost connections there and returns those that have ended.
    pub fn check_when_due<C>(
        &self,
        timeout: Duration,
        connect: impl FnOnce() -> Result<C, String>,
        kill: impl FnOnce(C, &[ConnectionId]) -> Vec<ConnectionId>,
    ) {
        let is_well = |state: &mut State| state.is_well();
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, is_well);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_well() {
            return;
        }
        let lost: Vec<_> = state.lost.iter().map(|(lost, _)| *lost).collect();
        drop(state);
        match connect() {
            Ok(connection) => {
                // Requests that did not use a lost connection need not wait for its end.
                self.set_up();
                let ended = kill(connection, &lost);
                self.remove_lost(&ended);
            }
            Err(cause) => self.set_down(&cause),
        }
        if !self.lock().is_well() {
            thread::sleep(CHECK_INTERVAL);
        }
    }

    fn set_up(&self) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.status, Status::Up);
        let lasted_ms = state.since.elapsed().as_millis();
        drop(state);
        METRICS.database_up.set(1);
        self.changed.notify_all();
        if let Status::Down(_) = before {
            info!("the database answers again, after {lasted_ms} ms");
        }
    }

    fn set_down(&self, cause: &str) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.status, Status::Down(cause.to_owned()));
        drop(state);
        METRICS.database_up.set(0);
        self.changed.notify_all();
        if !matches!(before, Status::Down(_)) {
            warn!("the database does not answer, and requests are refused until it does: {cause}");
        }
    }

    /// Removes connections that have ended, and gives up those that could not be ended for long.
    fn remove_lost(&self, ended: &[ConnectionId]) {
        let mut state = self.lock();
        state.lost.retain(|(lost, _)| !ended.contains(lost));
        let before = state.lost.len();
        state.lost.retain(|(_, at)| at.elapsed() < KILL_GIVE_UP);
        let given_up = before - state.lost.len();
        drop(state);
        self.changed.notify_all();
        if given_up > 0 {
            warn!(
                "{given_up} connections that were lost in the middle of a write could not be ended (KILL refused, \
                 or a proxy in between?): what they wrote late, if anything, ends with its ttl"
            );
        }
    }
}
