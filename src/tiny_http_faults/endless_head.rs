//! Fault: `tiny_http` keeps the head of a request in memory, without a limit. On a Unix socket,
//! whose connections inherit no timeouts, nothing cuts off a client that does not read its answers.
//!
//! So a client is cut off if it has sent much since its last complete request, or if its socket
//! accepts no more answers. The sockets are checked each second, and at once when the process
//! grows.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use log::warn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;

use crate::metrics::METRICS;
use crate::net::{Connections, set_timeouts, sockets};
use crate::process_stats::ProcessSize;

/// A client that has sent more than this since its last complete request is cut off. An honest head
/// has a few hundred bytes.
const UNFINISHED_MAX_BYTES: u64 = 32 * 1024;

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

#[derive(Default)]
struct Sockets {
    /// How many bytes each client had sent when it last completed a request.
    finished: HashMap<SocketAddr, u64>,
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

    /// Cuts off clients as described above. The clients in `active` have completed a request since
    /// the last check.
    pub fn check(
        &mut self,
        connections: &Connections,
        active: &HashSet<SocketAddr>,
        size: &ProcessSize,
        is_crowded: bool,
    ) {
        (self.checked_at, self.pages) = (Instant::now(), size.pages);
        let timeout = if is_crowded { UNREAD_CROWDED_TIMEOUT } else { UNREAD_TIMEOUT };
        let mut now = Sockets::default();
        let mut cut_off = 0;
        connections.each(|socket, peer| {
            let is_bad = match peer {
                Some(peer) => now.sends_endless_head(socket, peer, &self.sockets, active),
                None => now.reads_no_answers(socket, &self.sockets, timeout),
            };
            if is_bad {
                cut_off += 1;
                let _ = rustix::net::shutdown(socket, Shutdown::Both);
            }
        });
        self.sockets = now;
        if cut_off > 0 {
            METRICS.cut_off.inc_by(cut_off);
            warn!(
                "cut off {cut_off} clients that sent an endless head, or did not read their answers"
            );
        }
    }
}

impl Sockets {
    fn sends_endless_head(
        &mut self,
        socket: BorrowedFd,
        peer: SocketAddr,
        before: &Self,
        active: &HashSet<SocketAddr>,
    ) -> bool {
        // Each connection has two descriptors.
        if self.finished.contains_key(&peer) {
            return false;
        }
        let Some(received) = sockets::received_bytes(socket) else {
            return false;
        };
        let finished = match before.finished.get(&peer) {
            _ if active.contains(&peer) => received,
            // If the client has received less, it is another connection with the same port.
            Some(finished) if *finished <= received => *finished,
            _ => 0,
        };
        self.finished.insert(peer, finished);
        received - finished > UNFINISHED_MAX_BYTES
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
