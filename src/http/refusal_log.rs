//! The log lines about refused requests: somebody who writes a bot sees why, and a bot that repeats a refused
//! request for ever does not fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::info;

/// Between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// What is shown of a path: enough to know it again.
const PATH_MAX_CHARS: usize = 100;

/// When the last line was written, and how many requests were refused since.
#[derive(Default)]
pub struct ClientErrorLog(Mutex<(Option<Instant>, u64)>);

impl ClientErrorLog {
    /// Logs that a request is refused, at most once a second.
    pub fn note(&self, method: &str, target: &str, status: u16, why: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, unlogged) = *last;
        if at.is_some_and(|at| at.elapsed() < LINE_INTERVAL) {
            last.1 += 1;
            return;
        }
        *last = (Some(Instant::now()), 0);
        drop(last);
        let path: String = target.split('?').next().unwrap_or_default().chars().collect();
        let path: String = path.escape_debug().take(PATH_MAX_CHARS).collect();
        let more = if unlogged == 0 { String::new() } else { format!(", and {unlogged} more") };
        info!("Request refused status={status} method={method} path={path}: {why}{more}");
    }
}
