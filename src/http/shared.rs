//! The state that the server's threads share.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use parking_lot::Mutex;
use signal_hook::iterator::Handle;

use super::refusal_log::RefusalLog;
use super::routes::Router;
use crate::doctor::Finding;
use crate::net::Listener;
use crate::tiny_http_faults::answer_order::Clients;
use crate::tiny_http_faults::blocked_writer::Writers;
use crate::tiny_http_faults::forgotten_connection::Traffic;
use crate::tiny_http_faults::late_body::Readers;

/// Why the service ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// SIGTERM or Ctrl-C: every accepted request was answered.
    Stopped,
    /// The database or its table cannot be used until somebody fixes these problems.
    Unusable(Vec<Finding>),
    /// A failure that a restart may end.
    Failed(String),
}

/// A request and its time of arrival.
pub(super) type Arrived = (tiny_http::Request, Instant);

/// The shared state.
pub(super) struct Shared {
    pub http: tiny_http::Server,
    pub router: Router,
    pub listener: Listener,
    pub stopping: AtomicBool,
    pub clients: Clients,
    pub writers: Writers,
    pub refusals: RefusalLog,
    pub readers: Readers,
    pub traffic: Traffic,
    /// Requests that were received before and must be handled now.
    pub admitted: Mutex<VecDeque<Arrived>>,
    /// To the lister.
    pub lists: Sender<Option<Arrived>>,
    /// Held by the thread that receives, so that requests are taken in the order of their arrival.
    pub receiving: Mutex<()>,
    /// Whether a worker was woken and has not received anything since.
    pub is_woken: AtomicBool,
    pub ending: OnceLock<Ending>,
    /// Ends the wait for signals.
    pub signals: Handle,
}

impl Shared {
    /// Wakes a worker to do what is ready.
    pub fn wake(&self) {
        // One wake-up is enough: the woken worker does everything that is ready.
        if !self.is_woken.swap(true, Ordering::Relaxed) {
            self.http.unblock();
        }
    }

    /// Wakes a worker if a turn is ready.
    pub fn wake_if_ready(&self) {
        if self.router.service.is_ready() {
            self.wake();
        }
    }

    /// Ends the service.
    pub fn end(&self, ending: Ending) {
        // Only the first ending counts.
        let _ = self.ending.set(ending);
        self.signals.close();
    }

    /// Returns the value, or ends the service if `result` is an error.
    pub(super) fn end_if_failed<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|cause| self.end(Ending::Failed(cause))).ok()
    }
}
