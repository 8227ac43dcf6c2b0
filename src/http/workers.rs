//! The workers. Each receives all requests that have arrived, so that they go to the database
//! together, runs the turns that are ready, and answers.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use log::debug;
use parking_lot::MutexGuard;
use rustix::net::Shutdown;
use tiny_http::Method;

use super::body::{self, Body, Unreadable};
use super::outcomes::respond;
use super::requests::Parsed;
use super::response::{Refusal, Response};
use super::routes::{self, Request, Routed, ServedBy};
use super::shared::{Arrived, Shared};
use crate::metrics::METRICS;
use crate::net::ClientSocket;
use crate::page_history::HISTORY;
use crate::store::BATCH_MAX;
use crate::tiny_http_faults::answer_order::Admission;
use crate::tiny_http_faults::dead_acceptor;
use crate::tiny_http_faults::early_close::Connection;
use crate::tiny_http_faults::late_body::BODY_TIMEOUT;
use crate::tiny_http_faults::unread_body::{self, Rest, headers};

/// How long a stopping worker continues to receive after the last request.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// A request without an answer. Its drop reports the answer, so that the client's next request is
/// handled.
struct Unanswered {
    shared: Arc<Shared>,
    peer: Option<SocketAddr>,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(next) = self.shared.clients.answered(self.peer) {
            self.shared.admitted.lock().push_back((next, Instant::now()));
            self.shared.wake();
        }
    }
}

impl Shared {
    /// A worker's loop, until the service stops.
    pub(super) fn work(self: &Arc<Self>) {
        while !self.stopping.load(Ordering::Relaxed) {
            let requests = self.receive_batch(self.receiving.lock(), Vec::new(), |http| {
                if self.router.service.is_ready() {
                    // Do not block: a turn is ready, and no wake-up will follow.
                    http.try_recv()
                } else {
                    http.recv().map(Some)
                }
            });
            self.handle_all(requests);
        }
        self.drain();
    }

    /// Answers the requests that were accepted before the shutdown.
    fn drain(self: &Arc<Self>) {
        let mut until = Instant::now() + DRAIN_TIMEOUT;
        while Instant::now() < until {
            let requests = self.receive_batch(self.receiving.lock(), Vec::new(), |http| {
                http.recv_timeout(DRAIN_INTERVAL)
            });
            if !requests.is_empty() {
                until = Instant::now() + DRAIN_TIMEOUT;
            }
            self.handle_all(requests);
        }
    }

    /// Handles these requests, the turns that are ready, and the requests that arrive in the
    /// meantime. Requests that only read are answered at once, one by one, so requests that write
    /// go first.
    fn handle_all(self: &Arc<Self>, mut requests: Vec<Arrived>) {
        loop {
            let (changes, reads): (Vec<_>, Vec<_>) =
                requests.into_iter().partition(|(request, _)| *request.method() == Method::Post);
            for (request, arrived) in changes {
                self.handle(request, arrived);
            }
            let has_worked = self.router.service.work();
            for (request, arrived) in reads {
                self.handle(request, arrived);
            }
            let mut admitted = self.admitted.lock();
            if admitted.is_empty() && !has_worked {
                return;
            }
            let batch = admitted.len().min(BATCH_MAX);
            requests = admitted.drain(..batch).collect();
            drop(admitted);
            // Requests that arrived in the meantime join the turns that have become ready.
            if requests.len() < BATCH_MAX
                && let Some(receiving) = self.receiving.try_lock()
            {
                requests = self.receive_batch(receiving, requests, tiny_http::Server::try_recv);
            }
        }
    }

    /// Adds the next request and those behind it to these, up to the size of a batch.
    fn receive_batch(
        &self,
        receiving: MutexGuard<'_, ()>,
        mut requests: Vec<Arrived>,
        first: impl Fn(&tiny_http::Server) -> io::Result<Option<tiny_http::Request>>,
    ) -> Vec<Arrived> {
        let limit = BATCH_MAX - requests.len();
        self.receive(receiving, limit, first, |request| {
            // A request that only reads is answered at once, so other workers take the requests
            // behind it.
            let is_read = *request.method() != Method::Post;
            requests.push((request, Instant::now()));
            !is_read
        });
        requests
    }

    /// Receives the next request and those behind it, at most `limit`, and passes the admitted ones
    /// to `take`, which returns whether to continue. Two threads must not receive at the same time:
    /// a client's second request could overtake its first.
    pub(super) fn receive(
        &self,
        receiving: MutexGuard<'_, ()>,
        limit: usize,
        first: impl Fn(&tiny_http::Server) -> io::Result<Option<tiny_http::Request>>,
        mut take: impl FnMut(tiny_http::Request) -> bool,
    ) {
        let mut next = first(&self.http);
        let mut received = 0;
        let error = loop {
            let request = match next {
                Ok(Some(request)) => request,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            self.traffic.note();
            let peer = request.remote_addr().copied();
            let goes_on = match self.clients.admit(peer, request) {
                Admission::Now(request) => take(request),
                Admission::TooMany => {
                    self.cut_off(peer);
                    true
                }
                Admission::Refused(request) => {
                    self.end_if_failed(unread_body::discard(request));
                    true
                }
                Admission::Later => true,
            };
            received += 1;
            if !goes_on || received >= limit {
                break None;
            }
            next = self.http.try_recv();
        };
        drop(receiving);
        // `try_recv` may have consumed a wake-up.
        self.is_woken.store(false, Ordering::Relaxed);
        if let Some(error) = error {
            self.end_if_failed(dead_acceptor::received(&error));
        }
    }

    /// Serves a request, or passes it to the lister.
    fn handle(self: &Arc<Self>, request: tiny_http::Request, arrived: Instant) {
        if routes::served_by(request.url()) == ServedBy::Lister {
            // The lister ends after all workers, so this cannot fail.
            let _ = self.lists.send(Some((request, arrived)));
        } else {
            self.serve(request, arrived);
        }
    }

    /// Serves one request. An operation on a session is answered later, in its turn.
    pub(super) fn serve(self: &Arc<Self>, mut request: tiny_http::Request, arrived: Instant) {
        let peer = request.remote_addr().copied();
        let unanswered = Unanswered { shared: Arc::clone(self), peer };
        match body::read(&mut request) {
            Ok(Body::Read(body)) => self.follow(request, &body, arrived, unanswered),
            Ok(Body::Late) => {
                let until = Instant::now() + BODY_TIMEOUT;
                self.run_apart(peer, move |shared| {
                    let read = body::read_late(&mut request, until);
                    // A stop ends all reading, and the rest may have been on its way.
                    let is_stopping = shared.ending.get().is_some();
                    match read {
                        Ok(_) if is_stopping => {
                            let rest = Rest::of_chunks(&request);
                            shared.refuse(request, (Unreadable::Stopping, rest), unanswered);
                        }
                        Err((Unreadable::Invalid(_), rest)) if is_stopping => {
                            shared.refuse(request, (Unreadable::Stopping, rest), unanswered);
                        }
                        Ok(body) => shared.follow(request, &body, Instant::now(), unanswered),
                        Err(refused) => shared.refuse(request, refused, unanswered),
                    }
                    shared.wake_if_ready();
                });
            }
            Err((why, Rest::Declared)) => self.run_apart(peer, move |shared| {
                shared.refuse(request, (why, Rest::Declared), unanswered);
            }),
            Err(refused) => self.refuse(request, refused, unanswered),
        }
    }

    /// Runs a job that reads from this client and may wait for it.
    fn run_apart(
        self: &Arc<Self>,
        peer: Option<SocketAddr>,
        job: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) {
        let shared = Arc::clone(self);
        match peer {
            Some(peer) => self.readers.run(peer, move || job(&shared)),
            None => drop(self.end_if_failed(self.writers.run(move || job(&shared)))),
        }
    }

    /// Refuses a request whose body was not read.
    fn refuse(
        self: &Arc<Self>,
        request: tiny_http::Request,
        (why, rest): (Unreadable, Rest),
        unanswered: Unanswered,
    ) {
        let response = Response::from(Refusal::from(why));
        self.write(unanswered.peer, move |shared| {
            let socket = ClientSocket::of(unanswered.peer);
            let kept = if unread_body::must_stay(&request, rest) {
                VecDeque::new()
            } else {
                shared.clients.close(unanswered.peer, socket.as_ref())
            };
            let http = response.to_http(Connection::Closes);
            let refused = unread_body::refuse(request, rest, http, socket.as_ref());
            if let Some(Some(request)) = shared.end_if_failed(refused) {
                shared.send(request, &response, Connection::Closes);
            }
            // Otherwise `tiny_http` would wait for another request.
            if let Some(socket) = socket {
                socket.shut_down(Shutdown::Both);
            }
            for request in kept {
                shared.end_if_failed(unread_body::discard(request));
            }
            drop(unanswered);
        });
    }

    /// Follows a request's route.
    fn follow(
        self: &Arc<Self>,
        request: tiny_http::Request,
        body: &[u8],
        arrived: Instant,
        unanswered: Unanswered,
    ) {
        let peer = unanswered.peer;
        let header = |name| headers(&request, name).first().copied();
        let parts = Request {
            method: request.method().as_str(),
            target: request.url(),
            authorization: header("Authorization"),
            origin: header("Origin"),
            host: header("Host"),
            body,
        };
        let (route, routed) = or_internal(|| self.router.route(&parts, arrived));
        // A wait in a queue says nothing about the speed of the service.
        let may_wait =
            matches!(&routed, Routed::Parsed(Parsed::Acquire { wait, .. }) if !wait.is_zero());
        let shared = Arc::clone(self);
        let send = move |response: Response| {
            shared.write(peer, move |shared| {
                let connection = Connection::after(&request);
                shared.send(request, &response, connection);
                let took = arrived.elapsed();
                METRICS.answered(route, took);
                if !may_wait {
                    HISTORY.answered(took);
                }
                drop(unanswered);
            });
        };
        let parsed = match routed {
            Routed::Answered(response) => return send(response),
            Routed::Parsed(parsed) => parsed,
        };
        let reply = Box::new(move |operation: &_, outcome| {
            send(respond(operation, peer, outcome));
        });
        let service = &self.router.service;
        match parsed {
            Parsed::Acquire { acquire, wait } => service.acquire(acquire, wait, arrived, reply),
            Parsed::Other(operation) => service.submit(operation, arrived, reply),
        }
    }

    /// Runs a job that writes an answer to this client, and may block until the client reads.
    fn write(self: &Arc<Self>, peer: Option<SocketAddr>, job: impl FnOnce(&Self) + Send + 'static) {
        if peer.is_some() {
            return job(self);
        }
        let shared = Arc::clone(self);
        self.end_if_failed(self.writers.run(move || job(&shared)));
    }

    fn send(&self, request: tiny_http::Request, response: &Response, connection: Connection) {
        let peer = request.remote_addr().copied();
        if let Some(why) = &response.refused {
            let method = request.method().as_str();
            self.refusals.note(method, request.url(), response.status, why);
        }
        // tiny_http panics on some `TE` headers, which must not end a worker.
        let sent = catch_unwind(AssertUnwindSafe(|| request.respond(response.to_http(connection))));
        if !matches!(sent, Ok(Ok(()))) {
            debug!("a client did not take its answer: {sent:?}");
            // Each answer to its other requests would block as long. After a panic, the client
            // would take the next answer for the answer to this request.
            self.cut_off(peer);
        }
    }

    fn cut_off(&self, peer: Option<SocketAddr>) {
        for request in self.clients.cut_off(peer) {
            self.end_if_failed(unread_body::discard(request));
        }
    }
}

/// A bug that one request triggers must not end a worker.
fn or_internal(route: impl FnOnce() -> (&'static str, Routed)) -> (&'static str, Routed) {
    catch_unwind(AssertUnwindSafe(route))
        .unwrap_or_else(|_| ("unknown", Routed::Answered(Refusal::Internal.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_request_is_a_500() {
        let (_, Routed::Answered(response)) = or_internal(|| panic!("on purpose")) else {
            panic!("it is answered");
        };
        assert_eq!(response.status, 500);
        assert!(response.body.contains("\"internal\""), "{}", response.body);
    }
}
