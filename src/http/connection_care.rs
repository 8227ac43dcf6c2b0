//! One thread that keeps connections moving while the workers are busy.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::routes::{self, ServedBy};
use super::shared::Shared;
use crate::net::Listen;
use crate::page_history::HISTORY;
use crate::process_stats::ProcessSize;
use crate::tiny_http_faults::endless_head::Checks;
use crate::tiny_http_faults::forgotten_connection::Nudges;

/// The maximum number of requests that one call receives in place of busy workers. Hostile clients
/// must not be able to send more in this time, or the queue grows. The limit leaves the thread time
/// for its other work.
const RECEIVE_MAX: usize = 4_096;

/// How long one call serves requests: the thread has other work.
const SERVE_TIMEOUT: Duration = Duration::from_millis(20);

impl Shared {
    /// The thread's loop, until the service stops.
    pub(super) fn care_for_connections(self: &Arc<Self>) {
        self.traffic.wake_current_thread();
        let size = ProcessSize::now();
        let (mut nudges, mut checks) = (Nudges::new(&size), Checks::new(&size));
        while !self.stopping.load(Ordering::Relaxed) {
            if self.end_if_failed(nudges.nudge(&self.traffic, &self.listener)).is_none() {
                return;
            }
            let size = ProcessSize::now();
            nudges.adapt(&size);
            self.receive_for_workers();
            self.readers.end_late();
            HISTORY.sample_when_due(|| self.router.service.queued());
            let is_crowded = self.writers.is_crowded();
            self.clients.shut_down_returned();
            if checks.are_due(&size, is_crowded) {
                self.clients.forget_gone();
                let received = self.clients.take_received();
                checks.check(&self.listener.connections, &received, &size, is_crowded);
            }
            nudges.pause();
        }
    }

    /// Receives requests while all workers are busy, mostly in the database. So a client that sends
    /// without end is detected, and requests that need no database are answered.
    ///
    /// Does nothing on a Unix socket: the requests of a connection must be handled in their order,
    /// and only the order of receiving shows it there.
    fn receive_for_workers(self: &Arc<Self>) {
        if matches!(self.listener.address(), Listen::Unix(_)) {
            return;
        }
        let Some(receiving) = self.receiving.try_lock() else {
            return;
        };
        let received_at = Instant::now();
        let mut local = Vec::new();
        self.receive(receiving, RECEIVE_MAX, tiny_http::Server::try_recv, |request| {
            if routes::served_by(request.url()) == ServedBy::AnyThread {
                local.push(request);
            } else {
                self.admitted.lock().push_back((request, Instant::now()));
            }
            true
        });
        // A client that does not read delays each answer.
        let until = received_at + SERVE_TIMEOUT;
        for request in local {
            if Instant::now() < until {
                self.serve(request, received_at);
            } else {
                self.admitted.lock().push_back((request, received_at));
            }
        }
        if !self.admitted.lock().is_empty() {
            self.wake();
        }
        self.wake_if_ready();
    }
}
