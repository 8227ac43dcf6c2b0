//! Fault: in a burst, `tiny_http` hands a connection to a pool thread that has been handed one already. That
//! connection then waits, with its request unread, until the pool gets another thread.
//!
//! Every new connection, opened and closed at once even, brings a thread: a nudge. Nudges are frequent while
//! requests come in, and rare when the server is idle.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::dead_acceptor;
use crate::net::Listener;
use crate::process::ProcessSize;

/// Between two nudges while requests come in: a connection that was forgotten in a burst waits a
/// few of these at most.
const NUDGE_INTERVAL: Duration = Duration::from_millis(20);

/// Nudges at once, while they bring forgotten connections to light.
const NUDGE_BURST_MAX: u32 = 64;

/// Nudges after the last request, for the connections of a burst whose turn has not come.
const NUDGES_AFTER_TRAFFIC: u32 = 10;

/// Between two nudges of an idle server: next to nothing, and the longest that a connection
/// waits which was forgotten without a request near it.
const NUDGE_IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// How long an idle server pauses: a single client's head without end adds 50 MB or so in this time.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// Whether requests come in, and the thread to wake when they do.
#[derive(Default)]
pub struct Traffic {
    is_new: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Traffic {
    /// Makes the current thread the one that is woken.
    pub fn wake_current_thread(&self) {
        self.thread.get_or_init(thread::current);
    }

    pub fn note(&self) {
        if !self.is_new.swap(true, Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// The nudges to come.
pub struct Nudges {
    left: u32,
    burst: u32,
    nudged_at: Option<Instant>,
    threads: u64,
}

impl Nudges {
    pub fn new(size: &ProcessSize) -> Self {
        Self { left: 0, burst: 1, nudged_at: None, threads: size.threads }
    }

    /// Nudges, if it is time.
    ///
    /// # Errors
    /// If no connection can be accepted any more: the process must end.
    pub fn nudge(&mut self, traffic: &Traffic, listener: &Listener) -> Result<(), String> {
        if traffic.is_new.swap(false, Ordering::Relaxed) {
            self.left = NUDGES_AFTER_TRAFFIC;
        }
        let is_recent = |at: Instant| at.elapsed() < NUDGE_IDLE_INTERVAL;
        if self.left == 0 && self.nudged_at.is_some_and(is_recent) {
            return Ok(());
        }
        self.nudged_at = Some(Instant::now());
        (0..self.burst).try_for_each(|_| dead_acceptor::check(listener, NUDGE_INTERVAL))
    }

    /// Decides from the size of the process how often to nudge. Each forgotten connection that says
    /// nothing keeps the thread that a nudge brought, so there may be more of them before one that does.
    pub fn adapt(&mut self, size: &ProcessSize) {
        if size.threads > self.threads {
            self.left = NUDGES_AFTER_TRAFFIC;
            self.burst = (self.burst * 2).min(NUDGE_BURST_MAX);
        } else {
            self.burst = 1;
        }
        self.threads = size.threads;
    }

    /// Pauses until the next nudge may be due; traffic ends the pause of an idle server.
    pub fn pause(&mut self) {
        if self.left > 0 {
            self.left -= 1;
            thread::sleep(NUDGE_INTERVAL);
        } else {
            thread::park_timeout(IDLE_PAUSE);
        }
    }
}
