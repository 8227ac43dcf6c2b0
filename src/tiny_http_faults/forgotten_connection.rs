//! Fault: in a burst, `tiny_http` may give a connection to a pool thread that already has one. The
//! connection then waits, with its request unread, until the pool gets another thread.
//!
//! Every new connection brings a thread, even one that is opened and closed at once, which is
//! called a nudge here. Nudges are frequent while requests arrive, and rare while the server is
//! idle.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::dead_acceptor;
use crate::net::Listener;
use crate::process_stats::ProcessSize;

/// Interval between nudges while requests arrive: a connection that was forgotten in a burst waits
/// for a few of these intervals.
const NUDGE_INTERVAL: Duration = Duration::from_millis(20);

/// The maximum number of nudges at once, while they uncover forgotten connections.
const NUDGE_BURST_MAX: u32 = 64;

/// Nudges after the last request, for connections of a burst that are still forgotten.
const NUDGES_AFTER_TRAFFIC: u32 = 10;

/// Interval between nudges of an idle server. They cost almost nothing. A connection that was
/// forgotten while no other requests arrived waits for at most this time.
const NUDGE_IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// How long an idle server pauses: the endless head of a single client adds about 50 MB in this
/// time.
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// Whether requests arrive, and the thread to wake when they do.
#[derive(Default)]
pub struct Traffic {
    is_new: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Traffic {
    /// Sets the current thread as the one to wake.
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

    /// Nudges if a nudge is due.
    ///
    /// # Errors
    /// Fails if no connection can be accepted any more: the process must end.
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

    /// Decides from the size of the process how often to nudge. A forgotten connection that sends
    /// nothing keeps the thread that a nudge brought. Several such connections may precede one with
    /// a request.
    pub fn adapt(&mut self, size: &ProcessSize) {
        if size.threads > self.threads {
            self.left = NUDGES_AFTER_TRAFFIC;
            self.burst = (self.burst * 2).min(NUDGE_BURST_MAX);
        } else {
            self.burst = 1;
        }
        self.threads = size.threads;
    }

    /// Pauses until the next nudge may be due. Traffic ends the pause of an idle server.
    pub fn pause(&mut self) {
        if self.left > 0 {
            self.left -= 1;
            thread::sleep(NUDGE_INTERVAL);
        } else {
            thread::park_timeout(IDLE_PAUSE);
        }
    }
}
