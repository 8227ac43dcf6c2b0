//! A proxy in front of the database, with the faults of networks.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What the proxy does with bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Bytes arrive later.
    Delay(Duration),
    /// Bytes arrive when the fault ends, as with TCP's retransmissions.
    Hold,
    /// Writes arrive when the fault ends; all other bytes pass.
    HoldWrites,
    /// Transactions that write are held, and `KILL` succeeds but ends nothing: a server that cannot
    /// finish a write.
    HangWrites,
    /// Bytes are discarded, with everything that follows on the connection. Neither end is told.
    Discard,
    /// The same, but only for the bytes of the database.
    DiscardReplies,
    /// Empty packets arrive in place of the database's bytes after its greeting.
    EmptyReplies,
    /// All connections are reset, including new ones.
    Reset,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Requests,
    Replies,
}

/// A proxy in front of a database.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    fault: Mutex<Fault>,
    changed: Condvar,
    /// Packets from the service, and their statements without the first of each packet.
    sent: AtomicU64,
    more_statements: AtomicU64,
    /// Connections so far. Those with a number below the second one transfer nothing any more.
    connections: AtomicU64,
    forgotten: AtomicU64,
    /// The connection number in handshakes; 0 keeps the server's own.
    number: AtomicU32,
    /// Whether new connections count rows that a statement found and did not change.
    counts_found_rows: AtomicBool,
}

/// The beginning of the text of a packet that writes.
const WRITES: [&str; 3] = ["START TRANSACTION", "INSERT INTO", "DELETE `"];

/// The text of a packet of statements.
fn text_of(packet: &[u8]) -> &[u8] {
    /// The protocol's header: length, sequence number and command.
    const HEAD_BYTES: usize = 5;
    packet.get(HEAD_BYTES..).unwrap_or_default()
}

/// The beginning of a packet that read-only servers refuse.
const GUARD: &[u8] = b"SET @takes_writes";

/// Whether these bytes begin with a packet that writes.
fn is_write(packet: &[u8]) -> bool {
    let text = text_of(packet);
    let text = match text.iter().position(|byte| *byte == b';') {
        Some(end) if text.starts_with(GUARD) => &text[end + 1..],
        _ => text,
    };
    WRITES.iter().any(|write| text.starts_with(write.as_bytes()))
}

/// How soon an idle connection detects that it must be reset.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Proxy {
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            fault: Mutex::new(Fault::None),
            changed: Condvar::new(),
            sent: 0.into(),
            more_statements: 0.into(),
            connections: 0.into(),
            forgotten: 0.into(),
            number: 0.into(),
            counts_found_rows: false.into(),
        });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.fault() == Fault::Reset {
                    continue;
                }
                // An unreachable database refuses connections, and so does the proxy.
                let Ok(server) = TcpStream::connect(*shared.target.lock().unwrap()) else {
                    continue;
                };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(POLL_INTERVAL)).unwrap();
                }
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let replies = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for ((from, to), direction) in
                    [((client, server), Direction::Requests), (replies, Direction::Replies)]
                {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.pass(number, from, to, direction));
                }
            }
        });
        proxy
    }

    pub fn url(&self, schema: &str) -> String {
        format!("mysql://root@{}/{schema}", self.address)
    }

    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
        self.shared.changed.notify_all();
    }

    /// Directs the proxy to another database, as an operator does. Existing connections end.
    pub fn redirect(&self, target: SocketAddr) {
        self.set(Fault::Reset);
        self.redirect_new(target);
        // On a busy machine, the poll is late.
        thread::sleep(POLL_INTERVAL * 6);
        self.set(Fault::None);
    }

    /// The same, but existing connections stay, as after a DNS change.
    pub fn redirect_new(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
    }

    /// The number of connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// From now on, discards bytes on existing connections, as a restarted router does. Neither end
    /// is told.
    pub fn forget_connections(&self) {
        self.shared.forgotten.store(self.connections(), Ordering::SeqCst);
    }

    /// Gives new connections this number in their handshake, like a proxy with its own connections
    /// to the server.
    pub fn number_connections(&self, number: u32) {
        self.shared.number.store(number, Ordering::SeqCst);
    }

    /// Has new connections count the rows that a statement found, even if it did not change them,
    /// like ProxySQL with its default settings.
    pub fn count_found_rows(&self) {
        self.shared.counts_found_rows.store(true, Ordering::SeqCst);
    }

    /// The number of packets from the service.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// The number of statements in them, without the first of each packet.
    pub fn more_statements(&self) -> u64 {
        self.shared.more_statements.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    /// Replaces the connection's number in a server's greeting. The number follows a header of 5
    /// bytes and the server's version, which ends with a zero.
    fn renumber(&self, greeting: &mut [u8]) {
        let number = self.number.load(Ordering::SeqCst);
        let end = greeting.iter().skip(5).position(|byte| *byte == 0);
        if let (Some(end), 1..) = (end, number) {
            greeting[5 + end + 1..][..4].copy_from_slice(&number.to_le_bytes());
        }
    }

    /// Sets `CLIENT_FOUND_ROWS` in the flags of a login, which follow a header of 4 bytes.
    fn change_flags(&self, login: &mut [u8]) {
        const FLAGS_AT: usize = 4;
        const CLIENT_FOUND_ROWS: u8 = 2;
        if self.counts_found_rows.load(Ordering::SeqCst) {
            login[FLAGS_AT] |= CLIENT_FOUND_ROWS;
        }
    }

    /// Waits for bytes. Returns `None` if the connection has ended or must be reset.
    fn read(&self, from: &mut TcpStream, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match from.read(buffer) {
                Ok(0) => return None,
                Ok(length) => return Some(length),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                        && self.fault() != Fault::Reset => {}
                Err(_) => return None,
            }
        }
    }

    fn pass(&self, number: u64, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = [0; 16_000];
        let mut is_lost = false;
        let mut is_first = true;
        while let Some(length) = self.read(&mut from, &mut buffer) {
            let is_first = std::mem::take(&mut is_first);
            let is_greeting = is_first && direction == Direction::Replies;
            if is_greeting {
                self.renumber(&mut buffer[..length]);
            } else if is_first {
                self.change_flags(&mut buffer[..length]);
            }
            if direction == Direction::Requests {
                self.sent.fetch_add(1, Ordering::SeqCst);
                let more = buffer[..length].iter().filter(|byte| **byte == b';');
                let more = more.count() as u64;
                self.more_statements.fetch_add(more, Ordering::SeqCst);
            }
            if let Fault::Delay(delay) = self.fault() {
                thread::sleep(delay);
            }
            let is_write = direction == Direction::Requests && is_write(&buffer[..length]);
            let is_transaction = is_write && {
                let text = text_of(&buffer[..length]);
                text.starts_with(GUARD) || text.starts_with(b"START TRANSACTION")
            };
            let holds = |fault: &mut Fault| match fault {
                Fault::Hold => true,
                Fault::HoldWrites => is_write,
                Fault::HangWrites => is_transaction,
                _ => false,
            };
            let fault = self.fault.lock().unwrap();
            let fault = *self.changed.wait_while(fault, holds).unwrap();
            if fault == Fault::HangWrites
                && direction == Direction::Requests
                && text_of(&buffer[..length]).starts_with(b"KILL ")
            {
                // The protocol's packet for a statement that succeeded.
                const OK: [u8; 11] = [7, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
                let _ = from.write_all(&OK);
                continue;
            }
            is_lost |= number < self.forgotten.load(Ordering::SeqCst);
            is_lost |= match fault {
                Fault::Reset => break,
                Fault::Discard => true,
                Fault::DiscardReplies => direction == Direction::Replies,
                _ => false,
            };
            let is_emptied =
                fault == Fault::EmptyReplies && direction == Direction::Replies && !is_greeting;
            // A length of three bytes, and the sequence number.
            let empty = [0, 0, 0, buffer[3]];
            let sent: &[u8] = if is_emptied { &empty } else { &buffer[..length] };
            if !is_lost && to.write_all(sent).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
