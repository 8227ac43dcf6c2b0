//! Fault: `tiny_http` reads a body before a worker sees the request only if its length is declared
//! and small, and the client neither waits for `100 Continue` nor offers an upgrade. A thread that
//! reads any other body waits for the client.
//!
//! So such a body, and the rest of a refused body, is read in its own thread, within
//! [`BODY_TIMEOUT`]. The number of these threads is limited: if all are taken, the slowest client
//! is cut off.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chunked_transfer::Decoder;
use parking_lot::Mutex;
use rustix::net::Shutdown;

use super::body::{BODY_MAX_BYTES, DRAIN_MAX_BYTES, Unreadable, is_chunked, is_upgrade};
use crate::net::shut_down;

/// How long a client may take to send its body. An honest client sends it with the head, or when it
/// is told to continue.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 8 * 1024;

/// Bodies that are read at the same time. An honest body takes milliseconds.
const READERS_MAX: usize = 64;

/// Reads the body of a request that `tiny_http` has not read. Waits for the client, on a TCP
/// connection at most until [`Readers::end_late`] ends it.
///
/// # Errors
/// Fails if the body is malformed, too large or not complete in time.
pub fn read(request: &mut tiny_http::Request) -> Result<Vec<u8>, Unreadable> {
    let until = Instant::now() + BODY_TIMEOUT;
    let (is_chunked, is_upgrade) = (is_chunked(request), is_upgrade(request));
    let length = if is_chunked { None } else { request.body_length() };
    // Sends 100 Continue if the client waits for it.
    let reader = request.as_reader();
    // After an offer of an upgrade, `tiny_http` returns the raw connection.
    let mut reader: Box<dyn Read> = match length {
        None if is_upgrade => Box::new(Decoder::new(reader)),
        None => Box::new(reader),
        Some(length) => Box::new(reader.take(u64::try_from(length).unwrap_or(u64::MAX))),
    };
    let incomplete = |error: &io::Error| {
        Unreadable::Invalid(format!("the body is not complete or its chunks are wrong: {error}"))
    };
    let mut body = Vec::new();
    let mut discarded = 0;
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let read = reader.read(&mut buffer).map_err(|error| incomplete(&error))?;
        // A client that sends its whole body before it reads sees the refusal only if the whole
        // body is read.
        if discarded > 0 || body.len() + read > BODY_MAX_BYTES {
            discarded += read;
        } else {
            body.extend_from_slice(&buffer[..read]);
        }
        if read == 0 || length == Some(body.len()) || discarded > DRAIN_MAX_BYTES {
            break;
        }
        if Instant::now() > until {
            return Err(incomplete(&io::ErrorKind::TimedOut.into()));
        }
    }
    match length {
        _ if discarded > 0 => Err(Unreadable::TooLarge),
        Some(length) if body.len() < length => {
            Err(incomplete(&io::ErrorKind::UnexpectedEof.into()))
        }
        _ => Ok(body),
    }
}

/// The clients whose bodies are being read, and when each read began.
#[derive(Clone, Default)]
pub struct Readers(Arc<Mutex<HashMap<SocketAddr, Instant>>>);

impl Readers {
    /// Runs a job that reads the body of this client's request, in its own thread.
    pub fn run(&self, peer: SocketAddr, job: impl FnOnce() + Send + 'static) {
        let mut began = self.0.lock();
        let longest = began.iter().min_by_key(|(_, began)| **began).map(|(peer, _)| *peer);
        if began.len() >= READERS_MAX
            && let Some(longest) = longest
        {
            began.remove(&longest);
            shut_down(Some(longest), Shutdown::Both);
        }
        began.insert(peer, Instant::now());
        drop(began);
        let running = Running { readers: self.clone(), peer };
        let builder = thread::Builder::new().name("body-reader".to_owned());
        let started = builder.spawn(move || {
            let _running = running;
            job();
        });
        started.expect("the unit allows more threads than these");
    }

    /// Cuts off the clients whose bodies take too long.
    pub fn end_late(&self) {
        let is_late = |_: &SocketAddr, began: &mut Instant| began.elapsed() > BODY_TIMEOUT;
        let late: Vec<_> = self.0.lock().extract_if(is_late).collect();
        for (peer, _) in late {
            shut_down(Some(peer), Shutdown::Read);
        }
    }
}

struct Running {
    readers: Readers,
    peer: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.readers.0.lock().remove(&self.peer);
    }
}
