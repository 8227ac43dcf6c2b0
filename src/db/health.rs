//! Whether the database answers. While it does not, requests are refused at once, instead of each
//! waiting to find that out; one thread tries until it does again, and first ends the connections
//! that were lost in the middle of a write, so that nothing they sent can take effect any more.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::metrics::METRICS;

/// A doubt is cleared in a few milliseconds if the database lives, and requests wait for that. With
/// one that lasts they are refused: it does not answer.
const DOUBT_PATIENCE: Duration = Duration::from_secs(1);

/// Between two tries to reach a database that does not answer: recovery is noticed so much later.
const TRY_PERIOD: Duration = Duration::from_millis(200);

/// A connection that was lost is given up after this: whoever waited for its end was answered long ago.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// How the database knows a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which server it is to: after a failover, the address leads to another.
    pub server: u64,
    /// Its number, in this life of the server.
    pub id: u32,
    pub opened: Instant,
}

/// What is known of the database.
pub struct Outage {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    way: Way,
    since: Instant,
    /// Connections that were lost in the middle of a write, and when.
    lost: Vec<(Identity, Instant)>,
    /// Connections that were opened before this may be as dead as the one that fell silent.
    trusted_since: Instant,
}

enum Way {
    Open,
    /// Something went wrong with a connection.
    Doubted,
    /// The database does not answer, and what was heard last.
    Closed(String),
}

impl State {
    fn is_over(&self) -> bool {
        matches!(self.way, Way::Open) && self.lost.is_empty()
    }
}

impl Default for Outage {
    fn default() -> Self {
        let now = Instant::now();
        let state = State { way: Way::Open, since: now, lost: Vec::new(), trusted_since: now };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Outage {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic happens under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection fell silent or could not be had: the database itself may be gone.
    pub fn doubt(&self) {
        let mut state = self.lock();
        if matches!(state.way, Way::Open) {
            state.way = Way::Doubted;
            state.since = Instant::now();
            self.changed.notify_all();
        }
    }

    /// As [`Outage::doubt`]; and what fell silent may be what all older connections go through.
    pub fn distrust(&self) {
        self.lock().trusted_since = Instant::now();
        self.doubt();
    }

    /// Since when connections must have been opened to be used.
    pub fn trusted_since(&self) -> Instant {
        self.lock().trusted_since
    }

    /// A connection was lost in the middle of a write.
    pub fn lost(&self, connection: Identity) {
        self.lock().lost.push((connection, Instant::now()));
        self.doubt();
    }

    /// Waits until the database is known to answer, or for as long as that is worth it.
    pub fn wait_until_open(&self, until: Instant) -> Result<(), String> {
        let mut state = self.lock();
        loop {
            let known = match &state.way {
                Way::Open => return Ok(()),
                Way::Doubted => "it does not answer",
                Way::Closed(cause) => cause,
            };
            let until = until.min(state.since + DOUBT_PATIENCE);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(known.to_owned());
            }
            state = self.wait(state, left);
        }
    }

    /// Waits until a connection that was lost is known to have ended.
    pub fn wait_until_ended(&self, connection: Identity, until: Instant) -> Result<(), String> {
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

    /// Whether every connection that was lost has ended, and the database answers.
    pub fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// The cause, while the database does not answer.
    pub fn cause(&self) -> Option<String> {
        match &self.lock().way {
            Way::Closed(cause) => Some(cause.clone()),
            Way::Open | Way::Doubted => None,
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, patience: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, patience);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for an outage, at most so long, and takes one step towards its end: `reach` is to find
    /// out whether the database answers, and `end` to end these connections there; it says which
    /// have ended.
    pub fn tend<C>(
        &self,
        patience: Duration,
        reach: impl FnOnce() -> Result<C, String>,
        end: impl FnOnce(C, &[Identity]) -> Vec<Identity>,
    ) {
        let is_over = |state: &mut State| state.is_over();
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_over);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_over() {
            return;
        }
        let lost: Vec<_> = state.lost.iter().map(|(lost, _)| *lost).collect();
        drop(state);
        match reach() {
            Ok(connection) => {
                // That a connection takes long to end is nothing to those who did not use it.
                self.open();
                let ended = end(connection, &lost);
                self.forget(&ended);
            }
            Err(cause) => self.close(&cause),
        }
        if !self.is_over() {
            thread::sleep(TRY_PERIOD);
        }
    }

    fn open(&self) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.way, Way::Open);
        let lasted_ms = state.since.elapsed().as_millis();
        drop(state);
        METRICS.database_up.set(1);
        self.changed.notify_all();
        if let Way::Closed(_) = before {
            info!("the database answers again, after {lasted_ms} ms");
        }
    }

    fn close(&self, cause: &str) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.way, Way::Closed(cause.to_owned()));
        drop(state);
        METRICS.database_up.set(0);
        self.changed.notify_all();
        if !matches!(before, Way::Closed(_)) {
            warn!("the database does not answer, and requests are refused until it does: {cause}");
        }
    }

    /// These have ended; and what cannot be ended for so long is given up.
    fn forget(&self, ended: &[Identity]) {
        let mut state = self.lock();
        state.lost.retain(|(lost, _)| !ended.contains(lost));
        let before = state.lost.len();
        state.lost.retain(|(_, at)| at.elapsed() < END_PATIENCE);
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
