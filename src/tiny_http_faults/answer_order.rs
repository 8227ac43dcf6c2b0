//! Fault: `tiny_http` delivers pipelined requests at once, but writes the answers of a connection
//! in the order of its requests. A worker that answers the second request blocks until the first
//! request is answered, which may wait 25 s in a queue.
//!
//! So requests that a client sends before its previous one is answered are kept until then, and a
//! client that sends too many is cut off. This works for TCP, where each client has an address; see
//! `blocked_writer` for Unix sockets.
//!
//! Another fault: `tiny_http` parses what follows an unread body as the next request. So nothing is
//! admitted that follows a request whose connection closes.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::net::Shutdown;

use super::unread_body::{DRAIN_MAX_BYTES, headers};
use crate::metrics::METRICS;
use crate::net::{cut_off, shut_down};

/// Requests that a client may send before its previous one is answered. Bots send one at a time.
/// The limit allows for the rare client that pipelines, and bounds the memory for a hostile one.
const PIPELINED_MAX: usize = 16;

/// How long a client that is gone is remembered. Its last bytes may wait to be parsed and received
/// for this time on a busy machine. A client with a new connection from the same port is cut off.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// The clients with unanswered requests.
#[derive(Default)]
pub struct Clients {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    unanswered: HashMap<SocketAddr, Pipeline>,
    /// The clients whose requests were received since this map was last taken, and about how many
    /// bytes these requests had.
    received: HashMap<SocketAddr, u64>,
}

/// The requests that a client sent while an earlier one was not answered yet.
#[derive(Default)]
struct Pipeline {
    requests: VecDeque<tiny_http::Request>,
    status: Status,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Status {
    #[default]
    Connected,
    /// The client sent too much at once, did not read its answers, or its connection closes after
    /// the next answer. Its other requests are discarded.
    CutOff,
    /// Since this time, none of the requests of a client that was cut off is being answered.
    Gone(Instant),
}

/// What becomes of a request.
pub enum Admission {
    /// Handle the request now.
    Now(tiny_http::Request),
    /// The request is kept until its client's previous one is answered.
    Later,
    /// The client has sent too many requests, and must be cut off.
    TooMany,
    /// The client was cut off, and the request must be discarded.
    Refused(tiny_http::Request),
}

impl Clients {
    /// Admits a request of this client, or keeps it.
    pub fn admit(&self, peer: Option<SocketAddr>, request: tiny_http::Request) -> Admission {
        let Some(peer) = peer else {
            return Admission::Now(request);
        };
        let mut state = self.state.lock();
        *state.received.entry(peer).or_default() += size_bytes(&request) as u64;
        let Some(pipeline) = state.unanswered.get_mut(&peer) else {
            state.unanswered.insert(peer, Pipeline::default());
            return Admission::Now(request);
        };
        if pipeline.status != Status::Connected {
            return Admission::Refused(request);
        }
        pipeline.requests.push_back(request);
        if pipeline.requests.len() > PIPELINED_MAX { Admission::TooMany } else { Admission::Later }
    }

    /// Reports that a request of this client is answered. Returns the client's next request, if one
    /// was kept.
    pub fn answered(&self, peer: Option<SocketAddr>) -> Option<tiny_http::Request> {
        let peer = peer?;
        let mut state = self.state.lock();
        let pipeline = state.unanswered.get_mut(&peer)?;
        let next = pipeline.requests.pop_front();
        if pipeline.status == Status::CutOff {
            pipeline.status = Status::Gone(Instant::now());
        } else if next.is_none() {
            state.unanswered.remove(&peer);
        }
        next
    }

    /// Cuts off a client with an unanswered request. Returns its other requests, which must be
    /// discarded.
    pub fn cut_off(&self, peer: Option<SocketAddr>) -> VecDeque<tiny_http::Request> {
        METRICS.cut_off.inc();
        cut_off(peer);
        self.close(peer)
    }

    /// Admits no more requests of a client with an unanswered request. Returns its other requests,
    /// which must be discarded.
    pub fn close(&self, peer: Option<SocketAddr>) -> VecDeque<tiny_http::Request> {
        let mut state = self.state.lock();
        let pipeline = peer.and_then(|peer| state.unanswered.get_mut(&peer));
        let requests = pipeline.map(|pipeline| {
            pipeline.status = Status::CutOff;
            std::mem::take(&mut pipeline.requests)
        });
        requests.unwrap_or_default()
    }

    /// The clients whose requests were received since the last call, and about how many bytes these
    /// requests had.
    pub fn take_received(&self) -> HashMap<SocketAddr, u64> {
        std::mem::take(&mut self.state.lock().received)
    }

    /// Removes clients that were cut off. If a new connection has the same address as one of them,
    /// its request was discarded, so the connection is shut down to tell its client.
    pub fn forget_gone(&self) {
        let mut state = self.state.lock();
        let is_gone = |pipeline: &mut Pipeline| match pipeline.status {
            Status::Gone(since) => since.elapsed() > GONE_TIMEOUT,
            Status::Connected | Status::CutOff => false,
        };
        let gone: Vec<_> = state.unanswered.extract_if(|_, pipeline| is_gone(pipeline)).collect();
        drop(state);
        for (peer, _) in gone {
            shut_down(Some(peer), Shutdown::Both);
        }
    }
}

/// About how many bytes a request has. If the length of its body is not declared, the longest that
/// is read of a refused body: `tiny_http` parses no other request of the client before its end.
fn size_bytes(request: &tiny_http::Request) -> usize {
    let header = |header: &tiny_http::Header| {
        header.field.as_str().as_str().len() + header.value.as_str().len() + ": \r\n".len()
    };
    let head = request.url().len() + request.headers().iter().map(header).sum::<usize>();
    let body = match request.body_length() {
        Some(length) => length.min(DRAIN_MAX_BYTES),
        None if headers(request, "Transfer-Encoding").is_empty() => 0,
        None => DRAIN_MAX_BYTES,
    };
    head + body
}
