//! Fault: `tiny_http` reads a body before a worker sees the request only if its length is declared
//! and small, and the client neither waits for `100 Continue` nor offers an upgrade. A thread that
//! reads any other body waits for the client.
//!
//! So such a body, and the rest of a refused body, is read in its own thread, within
//! [`BODY_TIMEOUT`]. The number of these threads is limited: if all are taken, the slowest client
//! is cut off.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::net::Shutdown;

use crate::net::shut_down;

/// How long a client may take to send its body. An honest client sends it with the head, or when it
/// is told to continue.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bodies that are read at the same time. An honest body takes milliseconds.
const READERS_MAX: usize = 64;

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
