//! The endpoint of a service, and plain connections to it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use tempfile::TempDir;

use super::session::next;
use super::{TIMEOUT, eventually};

/// The address to which clients connect.
#[derive(Clone, Debug)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub trait Stream: Read + Write + Send {
    fn set_timeouts(&self, read: Duration, write: Duration);
}

impl Stream for TcpStream {
    fn set_timeouts(&self, read: Duration, write: Duration) {
        self.set_read_timeout(Some(read)).unwrap();
        self.set_write_timeout(Some(write)).unwrap();
    }
}

impl Stream for UnixStream {
    fn set_timeouts(&self, read: Duration, write: Duration) {
        self.set_read_timeout(Some(read)).unwrap();
        self.set_write_timeout(Some(write)).unwrap();
    }
}

impl Endpoint {
    pub fn try_connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream: Box<dyn Stream> = match self {
            Self::Tcp(address) => Box::new(TcpStream::connect(address)?),
            Self::Unix(path) => Box::new(UnixStream::connect(path)?),
        };
        stream.set_timeouts(TIMEOUT, TIMEOUT);
        Ok(stream)
    }

    pub fn connect(&self) -> Box<dyn Stream> {
        self.try_connect().unwrap()
    }

    /// Sends these bytes on a new connection.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Box<dyn Stream> {
        let mut stream = self.connect();
        // A client that is cut off meanwhile learns of it when it reads.
        let _ = stream.write_all(bytes.as_ref());
        stream
    }

    /// Sends these bytes on a new connection. Returns everything that is received until its end.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut text = Vec::new();
        // A reset after the answer counts as an end.
        let _ = self.send(bytes).read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A connection from this source address, even if an earlier one used it.
pub fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    // Child processes of other tests must not inherit the socket, which would stay open in them.
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &from).unwrap();
    // The system may keep the address briefly after the earlier connection has ended.
    eventually(|| format!("a connection from {from}"), || connect(&socket, &to).ok());
    // The connection ends with a reset, after which the system does not keep the address.
    set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// A Unix socket in its own folder, in the form for `--listen`.
pub fn unix_socket() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", folder.path().join("lock.sock").display());
    (folder, listen)
}

/// A port on which nothing listens, and which the system assigns to no other socket meanwhile.
pub fn free_port() -> u16 {
    /// Below the range of ports that the system assigns.
    const PORTS: Range<u64> = 12_000..32_000;
    let count = PORTS.end - PORTS.start;
    let first = u64::from(std::process::id()) * 500;
    let mut ports = (0..count).map(|_| {
        let port = PORTS.start + (first + next()) % count;
        u16::try_from(port).expect("they are below 65536")
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
