//! Fault: as in `answer_order`, the answer to a pipelined request blocks its writer until the
//! earlier answers are written. On a Unix socket, nothing identifies the client of a request, so
//! the request cannot be held back.
//!
//! So on a Unix socket, each answer is written by its own thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Answers that may be written at the same time. Each takes one of the 8,192 tasks that the unit
/// allows, of which waiters need half.
const WRITERS_MAX: usize = 500;

/// With this many writers, clients that do not read are cut off sooner. It is well below the limit,
/// and more than honest clients need at once.
const WRITERS_CROWDED: usize = 100;

/// How long to wait for writers to finish: longer than the timeout of any client.
const WRITERS_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between checks whether they have finished.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// The threads that write answers.
#[derive(Clone, Default)]
pub struct Writers(Arc<AtomicUsize>);

impl Writers {
    /// Runs a job that writes an answer, in its own thread. Waits while there are too many such
    /// threads.
    ///
    /// # Errors
    /// Fails if none of them finishes in time: nothing more can be answered, and the process must
    /// end.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), String> {
        let in_time = self.wait_until_below(WRITERS_MAX);
        let count = Arc::clone(&self.0);
        count.fetch_add(1, Ordering::Relaxed);
        let builder = thread::Builder::new().name("writer".to_owned());
        let started = builder.spawn(move || {
            job();
            count.fetch_sub(1, Ordering::Relaxed);
        });
        started.expect("the unit allows more threads than these");
        if in_time {
            return Ok(());
        }
        Err("too many answers wait for earlier answers of their connection on the Unix socket; a restart frees their threads".to_owned())
    }

    /// Waits until there are fewer than `count`. Returns whether this happens in time.
    pub fn wait_until_below(&self, count: usize) -> bool {
        let until = Instant::now() + WRITERS_TIMEOUT;
        while self.0.load(Ordering::Relaxed) >= count {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(CHECK_INTERVAL);
        }
        true
    }

    pub fn is_crowded(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= WRITERS_CROWDED
    }
}
