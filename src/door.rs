//! The front door: the socket that the service listens on, and the sockets of its connections,
//! which `tiny_http` gives no way to. Knows no HTTP.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout, set_tcp_nodelay};
use rustix::net::{Shutdown, SocketAddrAny};

use crate::config::Listen;

/// A client that sends nothing for so long is cut off, within a request or between two. Longer
/// than clients keep an idle connection (nginx 60 s, Go 90 s, curl 118 s), so that it is the client
/// who closes it, and no request meets a connection that the server is about to close.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A client that does not read its answers is cut off after this.
pub const SEND_PATIENCE: Duration = Duration::from_secs(3);

/// A client that has sent so much since its last answer is cut off: it sends a head without end,
/// all of which is kept in memory. An honest head has a few hundred bytes.
const UNANSWERED_MAX_BYTES: u64 = 256 * 1024;

/// The listening socket.
pub struct Door {
    listener: OwnedFd,
    /// Where it is, with the port that the system chose if none was named.
    at: Listen,
    /// What the accepted sockets call themselves.
    name: SocketAddrAny,
}

/// A stream to the service itself.
pub trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// What was seen of the connections.
#[derive(Default)]
pub struct Seen {
    /// What each client had sent, and been sent, when it was last answered.
    answered: HashMap<SocketAddr, Bytes>,
    /// Since when each descriptor of a Unix socket takes no more answers.
    deaf_since: HashMap<RawFd, Instant>,
}

/// Bytes of a connection since its start.
#[derive(Clone, Copy)]
struct Bytes {
    received: u64,
    sent: u64,
}

impl Door {
    /// Listens, with what every accepted connection inherits.
    ///
    /// # Errors
    /// If the address is taken, or cannot be used.
    pub fn open(listen: &Listen, socket_mode: u32) -> io::Result<(Self, tiny_http::Listener)> {
        let (listener, at): (tiny_http::Listener, _) = match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                set_patience(listener.as_fd())?;
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
            listener: descriptor.try_clone_to_owned()?,
            name: rustix::net::getsockname(descriptor)?,
            at,
        };
        Ok((door, listener))
    }

    /// Where it is.
    #[must_use]
    pub fn at(&self) -> &Listen {
        &self.at
    }

    /// Connects to it as a client would; everything may take so long.
    ///
    /// # Errors
    /// If nobody listens, or it is too busy to say.
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
        if let Listen::Unix(path) = &self.at {
            let _ = fs::remove_file(path);
        }
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Read);
        each_socket(|socket, _| {
            if socket.as_raw_fd() != self.listener.as_raw_fd() && self.accepted(socket) {
                let _ = rustix::net::shutdown(socket, Shutdown::Read);
            }
        });
    }

    /// Cuts off clients that send a head without end. On a Unix socket, whose connections inherit
    /// nothing, sees to it that they are as patient as others, and cuts off clients that have not
    /// read their answers for `deaf_patience`. How many were cut off.
    pub fn cut_off(&self, seen: &mut Seen, deaf_patience: Duration) -> u64 {
        let mut cut_off = 0;
        let mut now = Seen::default();
        each_socket(|socket, peer| {
            if socket.as_raw_fd() == self.listener.as_raw_fd() || !self.accepted(socket) {
                return;
            }
            let is_bad = match peer {
                // Two descriptors belong to each connection.
                Some(peer) if now.answered.contains_key(&peer) => false,
                Some(peer) => bytes(socket).is_some_and(|bytes| {
                    let answered = match seen.answered.get(&peer) {
                        Some(before) if before.sent == bytes.sent => *before,
                        // New here, and not answered yet.
                        None if bytes.sent == 0 => Bytes {
                            received: 0,
                            sent: 0,
                        },
                        _ => bytes,
                    };
                    now.answered.insert(peer, answered);
                    bytes.received - answered.received > UNANSWERED_MAX_BYTES
                }),
                None => {
                    let _ = set_patience(socket);
                    !takes_answers(socket) && {
                        let descriptor = socket.as_raw_fd();
                        let since = seen.deaf_since.get(&descriptor).copied();
                        let since = since.unwrap_or_else(Instant::now);
                        now.deaf_since.insert(descriptor, since);
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

    /// Whether a socket is one that came in by this door.
    fn accepted(&self, socket: BorrowedFd) -> bool {
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
    let entries = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    for descriptor in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        // Safety: nothing is read or written through it, and it is closed by nobody here. One that
        // is closed meanwhile by its owner, or given to another file, fails to be the socket that
        // is looked for: it has another name, or another peer.
        #[allow(unsafe_code)]
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        if let Ok(peer) = rustix::net::getpeername(socket) {
            visit(
                socket,
                peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
            );
        }
    }
}

/// What a connection's kernel side has counted.
fn bytes(socket: BorrowedFd) -> Option<Bytes> {
    // Safety: all zeros is a valid `tcp_info`, of which the kernel fills as much as it knows, and
    // no more than the length that it is given. No library reads these two fields.
    #[allow(unsafe_code)]
    let (info, result) = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
        let result = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        );
        (info, result)
    };
    (result == 0).then_some(Bytes {
        received: info.tcpi_bytes_received,
        sent: info.tcpi_bytes_acked,
    })
}
