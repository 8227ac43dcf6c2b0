//! Whether the database answers. While it does not, requests are refused at once, and do not wait
//! for a timeout each. The health thread checks until the database answers again. It then ends the
//! connections that were lost during a write, so that none of their statements can still take
//! effect.

use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};
use parking_lot::{Condvar, Mutex};

use crate::metrics::METRICS;

/// How long requests wait for a check. If the database answers, a check takes a few milliseconds;
/// if it takes longer than this, requests are refused.
const SUSPECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between checks of a database that does not answer. It delays the end of the refusals.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// How long the health thread tries to end a lost connection. Requests that wait for its end give
/// up much earlier.
const KILL_GIVE_UP: Duration = Duration::from_secs(60);

/// How long a write may still take effect after its connection was lost, where `KILL` cannot reach
/// it. A packet that has reached the server waits for the locks of a lease and of a message, at
/// most 1 s each (`sql/connection/session.sql`); a third second is for the rest. Statements that a
/// proxy still holds are not covered.
const LATE_WRITE_MAX: Duration = Duration::from_secs(3);

/// Why a server does not finish a write, and the remedy.
pub const HANGING_WRITES: &str =
    "has its cluster lost its quorum, or is its disk full? Restore the cluster, or free disk space";

/// The identity of a connection in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// The identity of its server: after a failover, the same address leads to another server.
    pub server: u64,
    /// Its number on that server, until the server restarts. `None` if the number is unreliable,
    /// because of a proxy.
    pub number: Option<u64>,
    pub opened: Instant,
}

pub struct Health {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    status: Status,
    /// When the status was last changed from up to suspect.
    suspect_since: Instant,
    lost: Vec<Lost>,
    /// Connections that were opened before this time may be lost: the network may have been down.
    trusted_since: Instant,
}

/// A connection that was lost during a write.
struct Lost {
    id: ConnectionId,
    since: Instant,
    /// Whether it was killed but still exists.
    is_hung: bool,
}

impl Lost {
    /// Whether its statements can no longer take effect, although it has no number to kill.
    fn is_waited_out(&self) -> bool {
        self.id.number.is_none() && self.since.elapsed() >= LATE_WRITE_MAX
    }
}

/// The result of ending lost connections.
#[derive(Default)]
pub(super) struct Kills {
    pub ended: Vec<ConnectionId>,
    /// Killed, but still in their statement.
    pub hung: Vec<ConnectionId>,
}

enum Status {
    Up,
    /// A connection failed; a check is due.
    Suspect,
    /// The database does not answer; the text is the cause.
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
        let state =
            State { status: Status::Up, suspect_since: now, lost: Vec::new(), trusted_since: now };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Health {
    /// Reports a connection that failed or could not be opened: the database may be down.
    pub fn suspect(&self) {
        let mut state = self.state.lock();
        if matches!(state.status, Status::Up) {
            state.status = Status::Suspect;
            state.suspect_since = Instant::now();
            self.changed.notify_all();
        }
    }

    /// Like [`Health::suspect`]; all connections that are open now may be lost, too.
    pub fn suspect_all_connections(&self) {
        self.state.lock().trusted_since = Instant::now();
        self.suspect();
    }

    /// Connections that were opened before this time must not be used.
    pub fn trusted_since(&self) -> Instant {
        self.state.lock().trusted_since
    }

    /// Reports a connection that was lost during a write and must be ended.
    pub fn add_lost(&self, id: ConnectionId) {
        let lost = Lost { id, since: Instant::now(), is_hung: false };
        self.state.lock().lost.push(lost);
        self.suspect();
    }

    /// Waits until the database answers, but not longer than until `until`. The error says why it
    /// does not answer.
    pub fn wait_until_up(&self, until: Instant) -> Result<(), String> {
        let mut state = self.state.lock();
        loop {
            let cause = match &state.status {
                Status::Up => return Ok(()),
                Status::Suspect => "it does not answer",
                Status::Down(cause) => cause,
            };
            let until = until.min(state.suspect_since + SUSPECT_TIMEOUT);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(cause.to_owned());
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Waits until a lost connection has ended. Fails if it has not ended by `until`.
    pub fn wait_until_ended(&self, connection: ConnectionId, until: Instant) -> Result<(), String> {
        let timeout = until.saturating_duration_since(Instant::now());
        let is_lost = |state: &mut State| state.lost.iter().any(|lost| lost.id == connection);
        let mut state = self.state.lock();
        if self.changed.wait_while_for(&mut state, is_lost, timeout).timed_out() {
            return Err("a lost connection has not ended".to_owned());
        }
        Ok(())
    }

    /// The reason why the database does not answer, if it does not.
    pub fn cause(&self) -> Option<String> {
        match &self.state.lock().status {
            Status::Down(cause) => Some(cause.clone()),
            Status::Up | Status::Suspect => None,
        }
    }

    /// Waits until a check is due, and checks once. `check` finds out whether leases can be
    /// written, and ends lost connections.
    pub(super) fn check_when_due(
        &self,
        check: impl FnOnce(&[ConnectionId]) -> (Kills, Result<(), String>),
    ) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.is_well());
        let lost: Vec<_> = state.lost.iter().map(|lost| lost.id).collect();
        drop(state);
        let (kills, checked) = check(&lost);
        self.note_kills(&kills);
        match checked {
            Ok(()) => {
                let (before, since) = self.replace_status(Status::Up);
                if let Status::Down(_) = before {
                    let lasted_ms = since.elapsed().as_millis();
                    info!("the database can be used again, after {lasted_ms} ms");
                }
            }
            Err(cause) => {
                let (before, _) = self.replace_status(Status::Down(cause.clone()));
                if !matches!(before, Status::Down(_)) {
                    warn!(
                        "the database cannot be used, and requests are refused until it can: {cause}"
                    );
                }
            }
        }
        if !self.state.lock().is_well() {
            thread::sleep(CHECK_INTERVAL);
        }
    }

    /// Sets the status. Returns the previous one with its `suspect_since`.
    fn replace_status(&self, status: Status) -> (Status, Instant) {
        let is_up = matches!(status, Status::Up);
        let mut state = self.state.lock();
        let before = (std::mem::replace(&mut state.status, status), state.suspect_since);
        drop(state);
        METRICS.database_up.set(is_up.into());
        self.changed.notify_all();
        before
    }

    /// Removes connections that have ended or whose writes can no longer take effect, and those
    /// that could not be killed within [`KILL_GIVE_UP`].
    fn note_kills(&self, kills: &Kills) {
        let mut state = self.state.lock();
        state.lost.retain(|lost| !kills.ended.contains(&lost.id) && !lost.is_waited_out());
        for lost in &mut state.lost {
            lost.is_hung = kills.hung.contains(&lost.id);
        }
        let before = state.lost.len();
        state.lost.retain(|lost| lost.is_hung || lost.since.elapsed() < KILL_GIVE_UP);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ConnectionId {
        ConnectionId { server: 1, number: Some(number), opened: Instant::now() }
    }

    #[test]
    fn a_lost_connection_is_waited_for_until_it_has_ended() {
        let health = Health::default();
        let lost = id(7);
        health.add_lost(lost);
        let soon = || Instant::now() + Duration::from_millis(20);
        assert!(health.wait_until_ended(lost, soon()).is_err());
        // Another one does not wait.
        assert_eq!(health.wait_until_ended(id(8), soon()), Ok(()));
        health.note_kills(&Kills { ended: vec![], hung: vec![lost] });
        assert!(health.wait_until_ended(lost, soon()).is_err());
        health.note_kills(&Kills { ended: vec![lost], hung: vec![] });
        assert_eq!(health.wait_until_ended(lost, soon()), Ok(()));
    }

    #[test]
    fn an_outage_is_over_after_a_good_check() {
        let health = Health::default();
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(health.wait_until_up(soon()), Ok(()));
        health.suspect();
        health.check_when_due(|_| (Kills::default(), Err("no server".to_owned())));
        assert_eq!(health.cause().as_deref(), Some("no server"));
        let why = health.wait_until_up(soon()).unwrap_err();
        assert!(why.contains("no server"), "{why}");
        health.check_when_due(|_| (Kills::default(), Ok(())));
        assert_eq!(health.cause(), None);
        assert_eq!(health.wait_until_up(soon()), Ok(()));
    }
}
