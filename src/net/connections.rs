//! The sockets of accepted connections. `tiny_http` owns them and gives no access to them, so they
//! are found among the process's descriptors.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
    each_socket_of(
        |other| other == peer,
        |socket| {
            let _ = rustix::net::shutdown(socket, how);
        },
    );
}

/// Shuts down the connections of these clients.
pub fn shut_down_all(peers: &HashSet<SocketAddr>) {
    each_socket_of(
        |peer| peers.contains(&peer),
        |socket| {
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        },
    );
}

/// The connection of a client.
pub struct ClientSocket(OwnedFd);

impl ClientSocket {
    /// `None` if the client has closed its connection, or if there is no address.
    pub fn of(peer: Option<SocketAddr>) -> Option<Self> {
        let peer = peer?;
        let mut found = None;
        each_socket_of(|other| other == peer, |socket| found = socket.try_clone_to_owned().ok());
        found.map(Self)
    }

    pub fn shut_down(&self, how: Shutdown) {
        let _ = rustix::net::shutdown(&self.0, how);
    }

    pub fn cut_off(&self) {
        cut_off_socket(self.0.as_fd());
    }

    /// The number by which [`open_sockets`] names this connection.
    pub fn inode(&self) -> Option<u64> {
        rustix::fs::fstat(&self.0).ok().map(|stat| stat.st_ino)
    }
}

/// The sockets of which the process has a descriptor.
pub fn open_sockets() -> HashSet<u64> {
    descriptors().filter_map(socket_inode).collect()
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

/// Calls `visit` with each socket of the wanted clients.
fn each_socket_of(is_wanted: impl Fn(SocketAddr) -> bool, mut visit: impl FnMut(BorrowedFd)) {
    for borrowed in descriptors() {
        // Most sockets are not wanted, and are not copied.
        if peer_of(borrowed).is_some_and(&is_wanted)
            && let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(borrowed, 0)
            && peer_of(socket.as_fd()).is_some_and(&is_wanted)
        {
            visit(socket.as_fd());
        }
    }
}

/// Calls `visit` with each socket among the process's descriptors, and with its peer's address, if
/// any.
fn each_socket(mut visit: impl FnMut(BorrowedFd, Option<SocketAddr>)) {
    for borrowed in descriptors() {
        if socket_inode(borrowed).is_none() {
            continue;
        }
        // The copy stays the same socket, even if the number is reused.
        let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(borrowed, 0) else {
            continue;
        };
        visit(socket.as_fd(), peer_of(socket.as_fd()));
    }
}

/// The inode of a socket; `None` if it is another file.
fn socket_inode(file: BorrowedFd) -> Option<u64> {
    let stat = rustix::fs::fstat(file).ok()?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    (kind == rustix::fs::FileType::Socket).then_some(stat.st_ino)
}

fn peer_of(socket: BorrowedFd) -> Option<SocketAddr> {
    let peer = rustix::net::getpeername(socket).ok().flatten()?;
    SocketAddr::try_from(peer).ok()
}

/// The process's descriptors. If the owner closes one meanwhile and another file gets its number,
/// calls apply to that file.
fn descriptors() -> impl Iterator<Item = BorrowedFd<'static>> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.map(sockets::borrow)
}
