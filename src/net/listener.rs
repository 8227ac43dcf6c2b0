//! The socket that the service listens on, with the options that its connections inherit.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size, set_socket_send_buffer_size, set_socket_timeout,
    set_tcp_nodelay,
};

use super::connections::Connections;

/// The prefix of the path of a Unix socket, in a listen address and in a server's URL.
pub const UNIX_PREFIX: &str = "unix:";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

impl Listen {
    /// The address for clients on this machine, if the service listens on all addresses.
    pub fn for_clients(&self) -> Self {
        match self {
            Self::Tcp(address) if address.ip().is_unspecified() => {
                let loopback = match address.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                };
                Self::Tcp(SocketAddr::new(loopback, address.port()))
            }
            _ => self.clone(),
        }
    }
}

/// A client that sends nothing for this time is cut off, within a request or between requests.
/// Clients keep an idle connection for a shorter time (nginx 60 s, Go 90 s, curl 118 s). So the
/// client closes the connection, and no request is sent on a connection that the server is about to
/// close.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(120);

/// A client that does not read its answers is cut off when the next answer has not fitted for this
/// time. The time is short, because a worker waits for it: the buffer has room for any answer and
/// `SEND_BUFFER_BYTES` more.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// Room for the longest list and some more answers. The kernel counts twice their size.
const SEND_BUFFER_BYTES: usize = 512 * 1024;

/// Room for some dozens of requests that a worker has not received yet. It bounds what is left to
/// read after a connection is shut down.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

/// The listening socket's address. `tiny_http` owns the socket.
pub struct Listener {
    /// With the port that the system chose if none was named.
    address: Listen,
    pub connections: Connections,
    /// Device and inode of the socket file, to recognise it.
    file: Option<(u64, u64)>,
}

/// A stream to the service itself.
pub trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Listener {
    /// Listens, with the options that every accepted connection inherits.
    ///
    /// # Errors
    /// Fails if the address cannot be bound.
    pub fn bind(listen: &Listen, socket_mode: u32) -> io::Result<(Self, tiny_http::Listener)> {
        let (socket, address): (tiny_http::Listener, _) = match listen {
            Listen::Tcp(address) => {
                let socket = TcpListener::bind(address)?;
                set_timeouts(socket.as_fd())?;
                set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
                set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
                // Without TCP_NODELAY, the kernel holds back the end of a long answer until the
                // client has acknowledged its beginning, 40 ms later.
                set_tcp_nodelay(&socket, true)?;
                let address = Listen::Tcp(socket.local_addr()?);
                (socket.into(), address)
            }
            Listen::Unix(path) => (bind_file(path, socket_mode)?.into(), listen.clone()),
        };
        let descriptor = match &socket {
            tiny_http::Listener::Tcp(socket) => socket.as_fd(),
            tiny_http::Listener::Unix(socket) => socket.as_fd(),
        };
        let connections = Connections::of(rustix::net::getsockname(descriptor)?);
        let file = match &address {
            Listen::Tcp(_) => None,
            Listen::Unix(path) => file_id(path),
        };
        Ok((Self { address, connections, file }, socket))
    }

    /// The address, with the port that the system chose if none was named.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// Connects as a client would; `timeout` is for connecting and for each read.
    ///
    /// # Errors
    /// Fails as `connect` and `setsockopt` do.
    pub fn connect(&self, timeout: Duration) -> io::Result<Box<dyn Stream>> {
        match self.address.for_clients() {
            Listen::Tcp(address) => {
                let stream = TcpStream::connect_timeout(&address, timeout)?;
                stream.set_read_timeout(Some(timeout))?;
                Ok(Box::new(stream))
            }
            Listen::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(timeout))?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Refuses new connections, and reads no more from the existing ones.
    pub fn close(&self) {
        if let Listen::Unix(path) = &self.address
            && file_id(path) == self.file
        {
            let _ = fs::remove_file(path);
        }
        self.connections.shut_down_listener();
        self.connections.shut_down_reading();
    }
}

/// Sets a connection's timeouts. Connections of a Unix socket do not inherit them.
pub fn set_timeouts(socket: BorrowedFd) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(RECEIVE_TIMEOUT))?;
    set_socket_timeout(socket, Timeout::Send, Some(SEND_TIMEOUT))?;
    Ok(())
}

/// Listens on a socket file. A file that a crashed process left is replaced, and the new one has
/// its mode before any client can find it.
fn bind_file(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            let text = "a file of that name exists, and is not a socket";
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

/// Device and inode of a file.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}
