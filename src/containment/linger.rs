//! Fault: `tiny_http` closes a connection at once after its last answer. If the client is still sending a body
//! that was refused, the system then resets the connection, and the client loses the answer: a broken pipe
//! instead of the 413.
//!
//! So such a connection is kept open for a moment, and what comes on it is discarded.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, Shutdown};

use crate::net::{duplicate, sockets};

/// How long a client may go on sending: it notices the answer when it reads, after some megabytes at the
/// latest.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections that are kept open at the same time; each has a descriptor of the 8,192 that the unit allows.
const LINGERING_MAX: usize = 500;

/// What is discarded of one connection at a time, in so many pieces at most.
const DISCARD_BYTES: usize = 64 * 1024;
const DISCARDS_MAX: usize = 16;

/// The connections that are kept open, and since when.
#[derive(Default)]
pub struct Lingering(Mutex<Vec<(OwnedFd, Instant)>>);

impl Lingering {
    /// The connection of this client, to be kept after its last answer.
    pub fn hold(peer: Option<SocketAddr>) -> Option<OwnedFd> {
        peer.and_then(duplicate)
    }

    /// The last answer on this connection is written.
    pub fn add(&self, socket: Option<OwnedFd>) {
        let Some(socket) = socket else { return };
        let _ = rustix::net::shutdown(&socket, Shutdown::Write);
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.len() < LINGERING_MAX {
            sockets.push((socket, Instant::now()));
        }
    }

    /// Discards what has come, and closes the connections whose time is over or that both ends have closed.
    pub fn discard(&self) {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.is_empty() {
            return;
        }
        let mut buffer = vec![0; DISCARD_BYTES];
        sockets.retain(|(socket, since)| {
            for _ in 0..DISCARDS_MAX {
                let read = rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT);
                if !matches!(read, Ok((1.., _))) {
                    break;
                }
            }
            !sockets::is_closed_by_both(socket.as_fd()) && since.elapsed() < LINGER_TIMEOUT
        });
    }
}
