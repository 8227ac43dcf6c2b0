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

/// How the database knows a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number, in this life of the server.
    pub id: u32,
    /// When it was opened.
    pub opened: Instant,
}

/// What is known of the database.
pub struct Outage {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    way: Way,
    /// Since when it is not open.
    since: Instant,
    /// Connections that were lost in the middle of a write.
    lost: Vec<Identity>,
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
        let state = State {
            way: Way::Open,
            since: now,
            lost: Vec::new(),
            trusted_since: now,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
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
    #[must_use]
    pub fn trusted_since(&self) -> Instant {
        self.lock().trusted_since
    }

    /// A connection was lost in the middle of a write.
    pub fn lost(&self, connection: Identity) {
        self.lock().lost.push(connection);
        self.doubt();
    }

    /// Waits until the database is known to answer, or for as long as that is worth it.
    ///
    /// # Errors
    /// What is known of why it does not.
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
    ///
    /// # Errors
    /// If it may live on.
    pub fn wait_until_ended(&self, connection: Identity, until: Instant) -> Result<(), String> {
        let mut state = self.lock();
        while state.lost.contains(&connection) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("a lost connection has not ended".to_owned());
            }
            state = self.wait(state, left);
        }
        Ok(())
    }

    /// Whether every connection that was lost has ended, and the database answers.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// The cause, while the database does not answer.
    #[must_use]
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

    /// Waits for an outage, at most so long, and takes one step towards its end: `mend` is to reach
    /// the database and to end these connections there, and says which of them have ended.
    pub fn tend(
        &self,
        patience: Duration,
        mend: impl FnOnce(&[Identity]) -> Result<Vec<Identity>, String>,
    ) {
        let is_over = |state: &mut State| state.is_over();
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), patience, is_over);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_over() {
            return;
        }
        let lost = state.lost.clone();
        drop(state);
        match mend(&lost) {
            Ok(ended) => self.open(&ended),
            Err(cause) => self.close(cause),
        }
        if !self.is_over() {
            thread::sleep(TRY_PERIOD);
        }
    }

    fn open(&self, ended: &[Identity]) {
        let mut state = self.lock();
        state.lost.retain(|connection| !ended.contains(connection));
        if let Way::Closed(_) = state.way {
            info!(
                "the database answers again, after {} ms",
                state.since.elapsed().as_millis()
            );
        }
        state.way = Way::Open;
        METRICS.database_up.set(1);
        self.changed.notify_all();
    }

    fn close(&self, cause: String) {
        let mut state = self.lock();
        if !matches!(state.way, Way::Closed(_)) {
            warn!("the database does not answer, and requests are refused until it does: {cause}");
            // What was opened before does not outlive it.
            state.trusted_since = Instant::now();
        }
        state.way = Way::Closed(cause);
        METRICS.database_up.set(0);
        self.changed.notify_all();
    }
}
