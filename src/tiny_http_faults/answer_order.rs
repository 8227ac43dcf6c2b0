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

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::unread_body::{DRAIN_MAX_BYTES, headers, is_read_in_advance};
use crate::metrics::METRICS;
use crate::net::{ClientSocket, open_sockets, shut_down_all};

/// Requests that a client may send before its previous one is answered. Bots send one at a time.
/// The limit allows for the rare client that pipelines, and bounds the memory for a hostile one.
const PIPELINED_MAX: usize = 16;

/// How long a client is remembered that closed its connection before it was cut off. Its last bytes
/// may wait to be parsed and received for this time on a busy machine.
const GONE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often another client with the port of one that is gone is looked for. Each time, all
/// descriptors are read, and the one that is gone may have left many requests.
const LOOKS_MAX: u32 = 4;

/// How long a check whether a connection is open is believed: a client may send many requests after
/// it is gone.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The clients with unanswered requests.
#[derive(Default)]
pub struct Clients {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    unanswered: HashMap<SocketAddr, Pipeline>,
    /// The clients whose requests were received since this map was last taken.
    received: HashMap<SocketAddr, Received>,
    /// The clients whose requests were discarded, and whose connections must be shut down.
    returned: HashSet<SocketAddr>,
}

/// The requests that a client sent while an earlier one was not answered yet.
#[derive(Default)]
struct Pipeline {
    requests: VecDeque<tiny_http::Request>,
    status: Status,
    /// The inode of the connection of a client that was cut off, if it was still open.
    socket: Option<u64>,
    /// Whether a request was discarded after the client was cut off.
    has_discarded: bool,
    /// How often another client with the same port was looked for.
    looked_for: u32,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Status {
    #[default]
    Connected,
    /// The client sent too much at once, did not read its answers, or its connection closes after
    /// the next answer. Its other requests are discarded.
    CutOff,
    /// None of the requests of a client that was cut off is being answered. Its connection was open
    /// at this time.
    Gone(Instant),
}

impl Pipeline {
    /// Whether another client has the port of a client that is gone.
    fn is_followed(&mut self, peer: SocketAddr) -> bool {
        if !matches!(self.status, Status::Gone(_)) || self.looked_for >= LOOKS_MAX {
            return false;
        }
        self.looked_for += 1;
        let now = ClientSocket::of(Some(peer)).and_then(|socket| socket.inode());
        now.is_some() && now != self.socket
    }

    /// Whether a client that is gone may still have requests that are not received yet: as long as
    /// any descriptor of its connection is open.
    fn may_return(&mut self, open_sockets: impl FnOnce() -> HashSet<u64>) -> bool {
        let Status::Gone(seen_at) = &mut self.status else { return true };
        let Some(socket) = self.socket else { return seen_at.elapsed() < GONE_TIMEOUT };
        if seen_at.elapsed() < CHECK_INTERVAL {
            return true;
        }
        *seen_at = Instant::now();
        open_sockets().contains(&socket)
    }
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
        state.received.entry(peer).or_default().add(&request);
        // A client that is gone for good may have been followed by another, with the same port.
        if let Entry::Occupied(mut known) = state.unanswered.entry(peer)
            && (known.get_mut().is_followed(peer) || !known.get_mut().may_return(open_sockets))
        {
            known.remove();
        }
        let Some(pipeline) = state.unanswered.get_mut(&peer) else {
            state.unanswered.insert(peer, Pipeline::default());
            return Admission::Now(request);
        };
        match pipeline.status {
            Status::Connected => {}
            Status::CutOff => {
                pipeline.has_discarded = true;
                return Admission::Refused(request);
            }
            Status::Gone(_) => {
                state.returned.insert(peer);
                return Admission::Refused(request);
            }
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
            if pipeline.has_discarded {
                state.returned.insert(peer);
            }
        } else if next.is_none() {
            state.unanswered.remove(&peer);
        }
        next
    }

    /// Cuts off a client with an unanswered request. Returns its other requests, which must be
    /// discarded.
    pub fn cut_off(&self, peer: Option<SocketAddr>) -> VecDeque<tiny_http::Request> {
        METRICS.cut_off.inc();
        let socket = ClientSocket::of(peer);
        if let Some(socket) = &socket {
            socket.cut_off();
        }
        self.close(peer, socket.as_ref())
    }

    /// Admits no more requests of a client with an unanswered request, whose connection is `socket`.
    /// Returns its other requests, which must be discarded.
    pub fn close(
        &self,
        peer: Option<SocketAddr>,
        socket: Option<&ClientSocket>,
    ) -> VecDeque<tiny_http::Request> {
        let mut state = self.state.lock();
        let pipeline = peer.and_then(|peer| state.unanswered.get_mut(&peer));
        let requests = pipeline.map(|pipeline| {
            pipeline.status = Status::CutOff;
            pipeline.socket = socket.and_then(ClientSocket::inode);
            std::mem::take(&mut pipeline.requests)
        });
        requests.unwrap_or_default()
    }

    /// The clients whose requests were received since the last call.
    pub fn take_received(&self) -> HashMap<SocketAddr, Received> {
        std::mem::take(&mut self.state.lock().received)
    }

    /// Forgets clients that are gone for good.
    pub fn forget_gone(&self) {
        let mut state = self.state.lock();
        let is_gone = |pipeline: &Pipeline| matches!(pipeline.status, Status::Gone(_));
        if state.unanswered.values().any(is_gone) {
            let open = open_sockets();
            state.unanswered.retain(|_, pipeline| pipeline.may_return(|| open.clone()));
        }
    }

    /// Shuts down the connections from which requests were discarded after their client was gone. If
    /// it is another client's, which was assigned the same port, that client learns of it.
    pub fn shut_down_returned(&self) {
        let returned = std::mem::take(&mut self.state.lock().returned);
        if !returned.is_empty() {
            shut_down_all(&returned);
        }
    }
}

/// About how many bytes the received requests of a client have.
#[derive(Clone, Copy, Default)]
pub struct Received {
    pub bytes: u64,
    /// The bodies among them that may still be on their way: `tiny_http` parses no other request
    /// before the end of such a body.
    pub late_bytes: u64,
}

impl Received {
    fn add(&mut self, request: &tiny_http::Request) {
        let header = |header: &tiny_http::Header| {
            header.field.as_str().as_str().len() + header.value.as_str().len() + ": \r\n".len()
        };
        let head = request.url().len() + request.headers().iter().map(header).sum::<usize>();
        // If the length is not declared, the longest that is read of a refused body.
        let body = match request.body_length() {
            Some(length) => length.min(DRAIN_MAX_BYTES),
            None if headers(request, "Transfer-Encoding").is_empty() => 0,
            None => DRAIN_MAX_BYTES,
        };
        self.bytes += (head + body) as u64;
        if !is_read_in_advance(request, body) {
            self.late_bytes += body as u64;
        }
    }
}
