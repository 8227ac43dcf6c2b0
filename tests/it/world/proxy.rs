//! A way to the database that fails as networks do.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to what passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// It arrives later.
    Delay(Duration),
    /// It arrives once this is over, as what is sent again until it is acknowledged.
    Hold,
    /// Transactions wait until this is over; all else passes.
    HoldWrites,
    /// It is lost, and so is all that follows on this connection: nobody is told.
    Swallow,
    /// Answers are lost likewise; requests arrive.
    SwallowAnswers,
    /// All connections are reset, new ones too.
    Cut,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Requests,
    Answers,
}

/// A proxy in front of a database.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: Mutex<SocketAddr>,
    fault: Mutex<Fault>,
    changed: Condvar,
    /// How often a client sent something, and how many statements beyond the first in that.
    sent: AtomicU64,
    more_statements: AtomicU64,
    /// Connections so far, and how many of the first are forgotten.
    connections: AtomicU64,
    forgotten: AtomicU64,
}

/// What a packet that writes begins with, behind the protocol's own bytes.
const WRITES: [&str; 3] = ["START TRANSACTION", "INSERT INTO", "DELETE `"];

/// Whether this is the beginning of a packet that writes.
fn is_write(packet: &[u8]) -> bool {
    /// Length, number and command.
    const HEAD_BYTES: usize = 5;
    let text = packet.get(HEAD_BYTES..).unwrap_or_default();
    let clock = text.starts_with(b"SET @packet_clock_us");
    clock || WRITES.iter().any(|write| text.starts_with(write.as_bytes()))
}

/// How soon a connection that says nothing notices that it is cut.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

impl Proxy {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to: Mutex::new(to),
            fault: Mutex::new(Fault::None),
            changed: Condvar::new(),
            sent: 0.into(),
            more_statements: 0.into(),
            connections: 0.into(),
            forgotten: 0.into(),
        });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.fault() == Fault::Cut {
                    continue;
                }
                // A database that is not there refuses, and so do we.
                let Ok(server) = TcpStream::connect(*shared.to.lock().unwrap()) else {
                    continue;
                };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(LOOK_PERIOD)).unwrap();
                }
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let answers = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for ((from, to), way) in
                    [((client, server), Way::Requests), (answers, Way::Answers)]
                {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.pass(number, from, to, way));
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

    /// Leads to another database from now on, as an operator does; the connections that there are end.
    pub fn lead_to(&self, to: SocketAddr) {
        self.set(Fault::Cut);
        *self.shared.to.lock().unwrap() = to;
        thread::sleep(LOOK_PERIOD * 2);
        self.set(Fault::None);
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Nothing passes any more on those that there are, and nobody is told: as a router that was
    /// restarted does.
    pub fn forget_connections(&self) {
        self.shared.forgotten.store(self.connections(), Ordering::SeqCst);
    }

    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    pub fn more_statements(&self) -> u64 {
        self.shared.more_statements.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn pass(&self, number: u64, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let mut buffer = [0; 16_000];
        let mut is_lost = false;
        loop {
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if self.fault() == Fault::Cut {
                        break;
                    }
                    continue;
                }
                Err(_) => break,
            };
            if way == Way::Requests {
                self.sent.fetch_add(1, Ordering::SeqCst);
                let more = buffer[..length].iter().filter(|byte| **byte == b';');
                let more = more.count() as u64;
                self.more_statements.fetch_add(more, Ordering::SeqCst);
            }
            if let Fault::Delay(delay) = self.fault() {
                thread::sleep(delay);
            }
            let is_write = way == Way::Requests && is_write(&buffer[..length]);
            let holds = |fault: &mut Fault| match fault {
                Fault::Hold => true,
                Fault::HoldWrites => is_write,
                _ => false,
            };
            let fault = self.fault.lock().unwrap();
            let fault = *self.changed.wait_while(fault, holds).unwrap();
            is_lost |= number < self.forgotten.load(Ordering::SeqCst);
            is_lost |= match fault {
                Fault::Cut => break,
                Fault::Swallow => true,
                Fault::SwallowAnswers => way == Way::Answers,
                _ => false,
            };
            if !is_lost && to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
