//! Fault: `tiny_http`'s accepting thread ends at the first error, and silently if it cannot start
//! another thread. Then the process must end, and be started again.

use std::io;
use std::time::Duration;

use crate::net::Listener;

/// Opens a connection to find out whether connections are accepted.
///
/// # Errors
/// Fails if the connection is not accepted: the process must end. Other failures are ignored: the
/// machine is busy.
pub fn check(listener: &Listener, timeout: Duration) -> Result<(), String> {
    let Err(error) = listener.connect(timeout) else { return Ok(()) };
    let is_dead = error.kind() == io::ErrorKind::ConnectionRefused
        || error.raw_os_error() == Some(libc::EMFILE);
    if !is_dead {
        return Ok(());
    }
    Err("connections cannot be accepted any more; is the process out of threads (TasksMax) or descriptors (LimitNOFILE)?".to_owned())
}

/// Checks an error of receiving. It may mean that the accepting thread has ended.
///
/// # Errors
/// Fails if the accepting thread has ended: the process must end.
pub fn received(error: &io::Error) -> Result<(), String> {
    // An error without a number only means that a worker was woken.
    if error.raw_os_error().is_none() {
        return Ok(());
    }
    Err(format!(
        "a connection could not be accepted ({error}); is the process out of descriptors (LimitNOFILE)?"
    ))
}
