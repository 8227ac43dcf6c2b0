//! Waits for conditions.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait in a test. It is long, because the machine is shared.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How often a condition is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until a condition is true.
pub fn eventually<T, D: Display>(
    what: impl Fn() -> D,
    mut happened: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = happened() {
            return value;
        }
        assert!(Instant::now() < until, "never happened: {}", what());
        thread::sleep(POLL_INTERVAL);
    }
}

/// Sets a flag when it is dropped, so that threads that check it end even if the test panics.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
