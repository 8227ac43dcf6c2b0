//! What the server's threads share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use signal_hook::iterator::Handle;

use super::refusal_log::RefusalLog;
use super::routes::Router;
use crate::containment::answer_order::Clients;
use crate::containment::blocked_writer::Writers;
use crate::containment::forgotten_connection::Traffic;
use crate::containment::late_body::Readers;
use crate::doctor::Finding;
use crate::net::Listener;

/// Why the service ended.
#[derive(Debug)]
pub enum Ending {
    /// SIGTERM or Ctrl-C: everything that was accepted is answered.
    Stopped,
    /// The database or its table cannot be used until somebody mends these.
    Unusable(Vec<Finding>),
    /// Something that a fresh process may be free of.
    Failed(String),
}

/// A request, and when it arrived.
pub(super) type Arrived = (tiny_http::Request, Instant);

/// What the threads share.
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
    /// Requests that were received already and are to be handled now.
    pub admitted: Mutex<VecDeque<Arrived>>,
    /// To the thread that answers with lists.
    pub lists: Sender<Option<Arrived>>,
    /// Held by whoever receives: requests are taken in the order they came in.
    pub receiving: Mutex<()>,
    /// Whether a worker was woken that has not received since.
    pub is_woken: AtomicBool,
    pub ending: OnceLock<Ending>,
    /// Ends the wait for signals.
    pub signals: Handle,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that could panic happens under these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Wakes a worker: there is something to do.
    pub fn wake(&self) {
        // Once is enough: the woken worker does everything that is there.
        if !self.is_woken.swap(true, Ordering::Relaxed) {
            self.http.unblock();
        }
    }

    /// Wakes a worker if there is a turn for one.
    pub fn wake_if_ready(&self) {
        if self.router.service.is_ready() {
            self.wake();
        }
    }

    /// Ends the service.
    pub fn end(&self, ending: Ending) {
        // The first one counts.
        let _ = self.ending.set(ending);
        self.signals.close();
    }

    /// Ends the service if this failed; the value if not.
    pub(super) fn end_if_failed<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|cause| self.end(Ending::Failed(cause))).ok()
    }
}
