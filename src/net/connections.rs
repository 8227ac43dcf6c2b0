//! The sockets of accepted connections. `tiny_http` owns them and gives no access to them, so they
//! are found among the process's descriptors.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{RecvFlags, Shutdown, SocketAddrAny};

use super::sockets;

/// The connections that one listener accepted, and the listening socket itself. The listener's
/// address identifies both.
pub struct Connections {
    listens_at: SocketAddrAny,
}

impl Connections {
    /// The connections of the listener with this address.
    pub fn of(listens_at: SocketAddrAny) -> Self {
        Self { listens_at }
    }

    /// Calls `visit` with each accepted socket and the client's address; a client of a Unix socket
    /// has none. A connection may have several descriptors, and is visited with each.
    pub fn each(&self, mut visit: impl FnMut(BorrowedFd, Option<SocketAddr>)) {
        each_socket(|socket, peer| {
            if self.accepted(socket) {
                visit(socket, peer);
            }
        });
    }

    /// Accepts no more connections.
    pub fn shut_down_listener(&self) {
        each_socket(|socket, _| {
            if self.is_listener(socket) {
                let _ = rustix::net::shutdown(socket, Shutdown::Read);
            }
        });
    }

    /// Reads no more from any connection.
    pub fn shut_down_reading(&self) {
        self.each(|socket, _| {
            let _ = rustix::net::shutdown(socket, Shutdown::Read);
        });
    }

    fn is_listener(&self, socket: BorrowedFd) -> bool {
        rustix::net::sockopt::socket_acceptconn(socket) == Ok(true)
            && rustix::net::getsockname(socket).is_ok_and(|address| address == self.listens_at)
    }

    fn accepted(&self, socket: BorrowedFd) -> bool {
        if rustix::net::getpeername(socket).is_err() {
            return false;
        }
        let Ok(address) = rustix::net::getsockname(socket) else {
            return false;
        };
        // If the listener is bound to 0.0.0.0, an accepted socket has the address to which its
        // client connected.
        let port = |address: &SocketAddrAny| {
            SocketAddr::try_from(address.clone()).ok().map(|address| address.port())
        };
        match port(&address) {
            Some(own) => port(&self.listens_at) == Some(own),
            None => address == self.listens_at,
        }
    }
}

/// Shuts down the connection of a client. The client's address identifies it: it is unique while
/// the connection is open.
pub fn shut_down(peer: Option<SocketAddr>, how: Shutdown) {
    let Some(peer) = peer else { return };
    each_socket(|socket, other| {
        if other == Some(peer) {
            let _ = rustix::net::shutdown(socket, how);
        }
    });
}

/// Cuts off a client: its connection, as [`cut_off_socket`] does.
pub fn cut_off(peer: Option<SocketAddr>) {
    let Some(peer) = peer else { return };
    each_socket(|socket, other| {
        if other == Some(peer) {
            cut_off_socket(socket);
        }
    });
}

/// More than the receive buffer of a connection holds.
const DISCARDED_BYTES: usize = 256 * 1024;

/// Shuts down a connection, and discards what has arrived on it, which `tiny_http` would otherwise
/// still parse. Discards all at once: of a part, `tiny_http` could read the rest as a request that
/// nobody has sent.
pub fn cut_off_socket(socket: BorrowedFd) {
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
    let mut discarded = vec![0; DISCARDED_BYTES];
    let _ = rustix::net::recv(socket, &mut discarded[..], RecvFlags::DONTWAIT);
}

/// Calls `visit` with each socket among the process's descriptors, and with its peer's address, if
/// any.
fn each_socket(mut visit: impl FnMut(BorrowedFd, Option<SocketAddr>)) {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for descriptor in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        // If the owner closes the socket meanwhile and another file gets its number, the calls
        // below apply to that file.
        let borrowed = sockets::borrow(descriptor);
        if !rustix::fs::fstat(borrowed).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket
        }) {
            continue;
        }
        // The copy stays the same socket, even if the number is reused.
        let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(borrowed, 0) else {
            continue;
        };
        let peer = rustix::net::getpeername(&socket).ok().flatten();
        visit(socket.as_fd(), peer.and_then(|peer| SocketAddr::try_from(peer).ok()));
    }
}
