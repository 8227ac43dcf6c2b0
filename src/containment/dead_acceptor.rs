//! Fault: `tiny_http`'s accepting thread ends for good at the first error, and silently if it cannot start
//! another thread. The process must end then, and be started again.

use std::io;
use std::time::Duration;

use crate::net::Listener;

/// Finds out whether connections are accepted, by opening one.
///
/// # Errors
/// If none is: the process must end. Any other failure passes: the machine is busy.
pub fn check(listener: &Listener, timeout: Duration) -> Result<(), String> {
    let Err(error) = listener.connect(timeout) else { return Ok(()) };
    let is_dead = error.kind() == io::ErrorKind::ConnectionRefused
        || error.raw_os_error() == Some(libc::EMFILE);
    if !is_dead {
        return Ok(());
    }
    Err("connections cannot be accepted any more; out of threads (TasksMax) or descriptors (LimitNOFILE)?".to_owned())
}

/// What an error of receiving means: nothing, or that the accepting thread has ended with it.
///
/// # Errors
/// If it has: the process must end.
pub fn received(error: &io::Error) -> Result<(), String> {
    // Without a number, the error says only that a worker was woken.
    if error.raw_os_error().is_none() {
        return Ok(());
    }
    Err(format!("a connection could not be accepted ({error}); out of descriptors? (LimitNOFILE)"))
}
