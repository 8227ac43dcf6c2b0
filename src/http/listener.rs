//! The front door: the socket that the service listens on, and the sockets of its connections,
//! which `tiny_http` gives no way to. Knows no HTTP.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size, set_socket_send_buffer_size, set_socket_timeout,
    set_tcp_nodelay,
};
use rustix::net::{Shutdown, SocketAddrAny};

use crate::config::Listen;
use crate::sockets;

/// A client that sends nothing for so long is cut off, within a request or between two. Longer
/// than clients keep an idle connection (nginx 60 s, Go 90 s, curl 118 s), so that it is the client
/// who closes it, and no request meets a connection that the server is about to close.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A client that leaves its answers unread is cut off when the next one has not fitted for so long.
/// Short, for a worker waits meanwhile: the buffer holds any answer, and `SEND_BUFFER_BYTES` more.
const SEND_PATIENCE: Duration = Duration::from_millis(100);

/// For the longest list and some answers more, of which the kernel counts twice the size.
const SEND_BUFFER_BYTES: usize = 512 * 1024;

/// What a client may have under way towards us: some dozens of requests. It bounds what is left to
/// read after its connection is shut down.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

/// A client that has sent so much since its last request was complete is cut off: it sends a head
/// without end, all of which is kept in memory. An honest head has a few hundred bytes.
const UNFINISHED_MAX_BYTES: u64 = 32 * 1024;

/// The listening socket. It is not kept here: when `tiny_http` drops it, nobody is to be let in.
pub struct Door {
    /// Where it is, with the port that the system chose if none was named.
    at: Listen,
    /// What it and the accepted sockets call themselves.
    name: SocketAddrAny,
    /// The socket file, to know it again.
    file: Option<(u64, u64)>,
}

/// A stream to the service itself.
pub trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// What was seen of the connections.
#[derive(Default)]
pub struct Seen {
    /// How many bytes each client had sent when it last completed a request.
    finished: HashMap<SocketAddr, u64>,
    /// Since when each socket of a Unix socket, by its inode, takes no more answers.
    deaf_since: HashMap<u64, Instant>,
}

impl Door {
    /// Listens, with what every accepted connection inherits.
    pub fn open(listen: &Listen, socket_mode: u32) -> io::Result<(Self, tiny_http::Listener)> {
        let (listener, at): (tiny_http::Listener, _) = match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                set_patience(listener.as_fd())?;
                set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
                set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER_BYTES)?;
                // Without it, the kernel holds the end of a long answer back until the client has
                // acknowledged its beginning, 40 ms later.
                set_tcp_nodelay(&listener, true)?;
                let at = Listen::Tcp(listener.local_addr()?);
                (listener.into(), at)
            }
            Listen::Unix(path) => (bind_file(path, socket_mode)?.into(), listen.clone()),
        };
        let descriptor = match &listener {
            tiny_http::Listener::Tcp(listener) => listener.as_fd(),
            tiny_http::Listener::Unix(listener) => listener.as_fd(),
        };
        let door = Self {
            name: rustix::net::getsockname(descriptor)?,
            file: match &at {
                Listen::Tcp(_) => None,
                Listen::Unix(path) => identity(path),
            },
            at,
        };
        Ok((door, listener))
    }

    /// Where it is.
    pub fn at(&self) -> &Listen {
        &self.at
    }

    /// Connects to it as a client would; everything may take so long.
    pub fn connect(&self, patience: Duration) -> io::Result<Box<dyn Stream>> {
        match &self.at {
            Listen::Tcp(address) => {
                let mut address = *address;
                match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => {
                        address.set_ip(Ipv4Addr::LOCALHOST.into());
                    }
                    IpAddr::V6(ip) if ip.is_unspecified() => {
                        address.set_ip(Ipv6Addr::LOCALHOST.into());
                    }
                    _ => {}
                }
                let stream = TcpStream::connect_timeout(&address, patience)?;
                stream.set_read_timeout(Some(patience))?;
                Ok(Box::new(stream))
            }
            Listen::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(patience))?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Closes it: whoever connects from now on is refused, and what has come on the connections
    /// that there are is all that will come.
    pub fn close(&self) {
        if let Listen::Unix(path) = &self.at
            && identity(path) == self.file
        {
            let _ = fs::remove_file(path);
        }
        each_socket(|socket, _| {
            if self.is_listener(socket) {
                let _ = rustix::net::shutdown(socket, Shutdown::Read);
            }
        });
        self.close_connections();
    }

    /// Lets nothing more come on the connections that there are.
    pub fn close_connections(&self) {
        each_socket(|socket, _| {
            if self.accepted(socket) {
                let _ = rustix::net::shutdown(socket, Shutdown::Read);
            }
        });
    }

    /// Cuts off clients that send a head without end, unless they have completed a request since the
    /// last look and so are among `asked`. On a Unix socket, whose connections inherit nothing, sees
    /// to it that they are as patient as others, and cuts off clients that have left their answers
    /// unread for `deaf_patience`. How many were cut off.
    pub fn cut_off(
        &self,
        seen: &mut Seen,
        asked: &HashSet<SocketAddr>,
        deaf_patience: Duration,
    ) -> u64 {
        let mut cut_off = 0;
        let mut now = Seen::default();
        each_socket(|socket, peer| {
            if !self.accepted(socket) {
                return;
            }
            let is_bad = match peer {
                // Two descriptors belong to each connection.
                Some(peer) if now.finished.contains_key(&peer) => false,
                Some(peer) => sockets::received_bytes(socket).is_some_and(|received| {
                    let finished = match seen.finished.get(&peer) {
                        _ if asked.contains(&peer) => received,
                        // Otherwise another connection has got the same port.
                        Some(finished) if *finished <= received => *finished,
                        _ => 0,
                    };
                    now.finished.insert(peer, finished);
                    received - finished > UNFINISHED_MAX_BYTES
                }),
                None => {
                    let _ = set_patience(socket);
                    !takes_answers(socket) && {
                        let inode = rustix::fs::fstat(socket).map_or(0, |stat| stat.st_ino);
                        let since = seen.deaf_since.get(&inode).copied();
                        let since = since.unwrap_or_else(Instant::now);
                        now.deaf_since.insert(inode, since);
                        since.elapsed() >= deaf_patience
                    }
                }
            };
            if is_bad {
                cut_off += 1;
                let _ = rustix::net::shutdown(socket, Shutdown::Both);
            }
        });
        *seen = now;
        cut_off
    }

    fn is_listener(&self, socket: BorrowedFd) -> bool {
        rustix::net::sockopt::socket_acceptconn(socket) == Ok(true)
            && rustix::net::getsockname(socket).is_ok_and(|name| name == self.name)
    }

    /// Whether a socket is one that came in by this door.
    fn accepted(&self, socket: BorrowedFd) -> bool {
        if rustix::net::getpeername(socket).is_err() {
            return false;
        }
        let Ok(name) = rustix::net::getsockname(socket) else {
            return false;
        };
        // On 0.0.0.0, accepted sockets have the address that the client knows.
        let port = |name: &SocketAddrAny| SocketAddr::try_from(name.clone()).ok().map(|a| a.port());
        match port(&name) {
            Some(own) => port(&self.name) == Some(own),
            None => name == self.name,
        }
    }
}

fn set_patience(socket: BorrowedFd) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(SILENCE_MAX))?;
    set_socket_timeout(socket, Timeout::Send, Some(SEND_PATIENCE))?;
    Ok(())
}

/// Whether there is room for more answers: on a Unix socket, whether three quarters are free.
fn takes_answers(socket: BorrowedFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    !matches!(poll(&mut polled, Some(&Timespec::default())), Ok(0))
}

/// Listens on a socket file. A file that a crashed process left is replaced, and the new one has
/// its mode before anybody can find it.
fn bind_file(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            let text = "there is a file of that name, which is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        _ => {}
    }
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{}", std::process::id()));
    let own = PathBuf::from(own);
    let _ = fs::remove_file(&own);
    let listener = UnixListener::bind(&own)?;
    let placed = fs::set_permissions(&own, Permissions::from_mode(mode))
        .and_then(|()| fs::rename(&own, path));
    if let Err(error) = placed {
        let _ = fs::remove_file(&own);
        return Err(error);
    }
    Ok(listener)
}

/// Shuts down the connection of a client, known by its address, which is unique while it is open.
pub fn shut_down(peer: Option<SocketAddr>, how: Shutdown) {
    let Some(peer) = peer else { return };
    each_socket(|socket, other| {
        if other == Some(peer) {
            let _ = rustix::net::shutdown(socket, how);
        }
    });
}

/// Calls `visit` with each socket among the process's descriptors, and its peer's address if it
/// has one.
fn each_socket(mut visit: impl FnMut(BorrowedFd, Option<SocketAddr>)) {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for descriptor in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        // One that is closed meanwhile by its owner, or given to another file, is that other file in all
        // of this.
        let borrowed = sockets::borrow(descriptor);
        if !rustix::fs::fstat(borrowed).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket
        }) {
            continue;
        }
        // What is looked at is what is shut down, whatever becomes of the number meanwhile.
        let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(borrowed, 0) else {
            continue;
        };
        let peer = rustix::net::getpeername(&socket).ok().flatten();
        visit(socket.as_fd(), peer.and_then(|peer| SocketAddr::try_from(peer).ok()));
    }
}

/// Device and inode of a file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}
