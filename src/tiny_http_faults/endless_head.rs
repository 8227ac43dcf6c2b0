//! Fault: `tiny_http` keeps in memory, without a limit, the head of a request and the requests that
//! it has read before anybody receives them. If clients send without end while the machine is busy,
//! honest requests wait behind a million others. On a Unix socket, whose connections inherit no
//! timeouts, nothing cuts off a client that does not read its answers.
//!
//! So a client is cut off if it has sent much more than the requests that were received from it, or
//! if its socket accepts no more answers. The sockets are checked each second, and at once when the
//! process grows.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use log::warn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::answer_order::Received;
use crate::metrics::METRICS;
use crate::net::{Connections, cut_off_socket, set_timeouts, sockets};
use crate::process_stats::ProcessSize;

/// A client that has sent more than this, beyond the requests that were received from it, is cut
/// off. An honest request has a few hundred bytes, and the next one is sent after its answer. Before
/// a request with a long body is received, the kernel's buffer for its connection may be full.
const UNRECEIVED_MAX_BYTES: u64 = 72 * 1024;

/// A client of a Unix socket whose answers have not fitted for this time is cut off, or sooner if
/// there are many writers. The client is on this machine, and reads within milliseconds if it reads
/// at all.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);
const UNREAD_CROWDED_TIMEOUT: Duration = Duration::from_millis(150);

/// Longest interval between checks: what a slow client adds in this time does not matter.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Growth of the process that causes an immediate check: 16 MiB, in pages of 4 KiB.
const GROWTH_PAGES: u64 = 4_096;

/// What the last check saw.
pub struct Checks {
    checked_at: Instant,
    pages: u64,
    sockets: Sockets,
}

/// What the last check saw of a client.
struct Sent {
    /// How many bytes it had sent.
    sent: u64,
    /// How many bytes it had sent or was about to send, at the last check that followed a request of
    /// it.
    expected: u64,
}

#[derive(Default)]
struct Sockets {
    clients: HashMap<SocketAddr, Sent>,
    /// Since when each connection of a Unix socket, by its inode, has accepted no more answers.
    unread_since: HashMap<u64, Instant>,
}

impl Checks {
    pub fn new(size: &ProcessSize) -> Self {
        Self { checked_at: Instant::now(), pages: size.pages, sockets: Sockets::default() }
    }

    /// Whether the connections must be checked now.
    pub fn are_due(&self, size: &ProcessSize, is_crowded: bool) -> bool {
        is_crowded
            || size.pages > self.pages + GROWTH_PAGES
            || self.checked_at.elapsed() >= CHECK_INTERVAL
    }

    /// Cuts off clients as described above. `received` contains the clients whose requests were
    /// received since the last check.
    pub fn check(
        &mut self,
        connections: &Connections,
        received: &HashMap<SocketAddr, Received>,
        size: &ProcessSize,
        is_crowded: bool,
    ) {
        (self.checked_at, self.pages) = (Instant::now(), size.pages);
        let timeout = if is_crowded { UNREAD_CROWDED_TIMEOUT } else { UNREAD_TIMEOUT };
        let mut now = Sockets::default();
        let mut cut_off = 0;
        connections.each(|socket, peer| {
            let is_bad = match peer {
                Some(peer) => now.sends_too_much(socket, peer, &self.sockets, received),
                None => now.reads_no_answers(socket, &self.sockets, timeout),
            };
            if is_bad {
                cut_off += 1;
                cut_off_socket(socket);
            }
        });
        self.sockets = now;
        if cut_off > 0 {
            METRICS.cut_off.inc_by(cut_off);
            warn!(
                "cut off {cut_off} clients that sent an endless head or too many requests, or did not read their answers"
            );
        }
    }
}

impl Sockets {
    fn sends_too_much(
        &mut self,
        socket: BorrowedFd,
        peer: SocketAddr,
        before: &Self,
        received: &HashMap<SocketAddr, Received>,
    ) -> bool {
        // Each connection has two descriptors.
        if self.clients.contains_key(&peer) {
            return false;
        }
        let Some(sent) = sockets::received_bytes(socket) else {
            return false;
        };
        // If the client has sent less, it is another connection with the same port.
        let known = before.clients.get(&peer).filter(|known| known.sent <= sent);
        let expected = known.map_or(0, |known| known.expected);
        let requests = received.get(&peer).copied().unwrap_or_default();
        // The sizes of the requests are estimates, so twice as much is allowed.
        let is_too_much = sent > expected + UNRECEIVED_MAX_BYTES + 2 * requests.bytes;
        // A client is cut off, and counted, once.
        let is_known = requests.bytes == 0 && !is_too_much;
        let expected = if is_known { expected } else { sent + 2 * requests.late_bytes };
        self.clients.insert(peer, Sent { sent, expected });
        is_too_much
    }

    fn reads_no_answers(&mut self, socket: BorrowedFd, before: &Self, timeout: Duration) -> bool {
        let _ = set_timeouts(socket);
        if takes_answers(socket) {
            return false;
        }
        let inode = rustix::fs::fstat(socket).map_or(0, |stat| stat.st_ino);
        let since = before.unread_since.get(&inode).copied().unwrap_or_else(Instant::now);
        self.unread_since.insert(inode, since);
        since.elapsed() >= timeout
    }
}

/// Whether there is room for more answers: on a Unix socket, whether three quarters of the buffer
/// are free.
fn takes_answers(socket: BorrowedFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    !matches!(poll(&mut polled, Some(&Timespec::default())), Ok(0))
}
