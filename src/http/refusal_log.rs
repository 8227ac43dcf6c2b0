//! The log lines about refused requests. The author of a bot sees the reason, and an operator sees
//! that requests are not served. A bot that repeats a refused request for ever does not fill the
//! log.

use std::time::{Duration, Instant};

use log::{info, warn};
use parking_lot::Mutex;

/// Interval between lines about client errors.
const CLIENT_ERROR_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between lines about requests that were not served: a failure may last for hours.
const UNAVAILABLE_INTERVAL: Duration = Duration::from_secs(60);

/// A failure that is shorter than this gets no line: most of its requests are served when they are
/// repeated.
const UNAVAILABLE_LASTS: Duration = Duration::from_secs(5);

/// How much of each part of a request is shown: enough to recognise it.
const PART_MAX_CHARS: usize = 500;

/// A part of a request without line breaks and other control characters.
fn printable(part: &str) -> String {
    let mut text = String::new();
    for character in part.chars().take(PART_MAX_CHARS) {
        if character.is_control() {
            text.extend(character.escape_debug());
        } else {
            text.push(character);
        }
    }
    text
}

/// When the last lines were written, and how many requests were refused since.
#[derive(Default)]
pub struct RefusalLog {
    client_errors: Mutex<(Option<Instant>, u64)>,
    unavailable: Mutex<Option<Unavailable>>,
}

/// Requests that were answered 503 in close succession.
struct Unavailable {
    /// When the next line is due.
    due: Instant,
    last: Instant,
    /// Requests since the last line, and when the first of them was refused.
    unlogged: u64,
    since: Instant,
}

impl RefusalLog {
    /// Logs that a request is refused, if a line is due.
    pub fn note(&self, method: &str, target: &str, status: u16, why: &str) {
        if status == 503 {
            self.note_unavailable(why);
        } else {
            self.note_client_error(method, target, status, why);
        }
    }

    fn note_client_error(&self, method: &str, target: &str, status: u16, why: &str) {
        let mut last = self.client_errors.lock();
        let (at, unlogged) = *last;
        if at.is_some_and(|at| at.elapsed() < CLIENT_ERROR_INTERVAL) {
            last.1 += 1;
            return;
        }
        *last = (Some(Instant::now()), 0);
        drop(last);
        let path = target.split('?').next().unwrap_or_default();
        let [method, path, why] = [method, path, why].map(printable);
        let more = if unlogged == 0 { String::new() } else { format!(", and {unlogged} more") };
        info!("Request refused status={status} method={method} path={path}: {why}{more}");
    }

    fn note_unavailable(&self, why: &str) {
        let now = Instant::now();
        let mut guard = self.unavailable.lock();
        let goes_on = |before: &Unavailable| now - before.last < UNAVAILABLE_INTERVAL;
        let before = guard.take().filter(goes_on);
        let due = now + UNAVAILABLE_LASTS;
        let mut unavailable =
            before.unwrap_or(Unavailable { due, last: now, unlogged: 0, since: now });
        if unavailable.unlogged == 0 {
            unavailable.since = now;
        }
        unavailable.last = now;
        unavailable.unlogged += 1;
        if now >= unavailable.due {
            let count = std::mem::take(&mut unavailable.unlogged);
            let seconds = (now - unavailable.since).as_secs();
            warn!(
                "{count} requests in {seconds} s were not served (503), the last one because {why}"
            );
            unavailable.due = now + UNAVAILABLE_INTERVAL;
        }
        *guard = Some(unavailable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_writes_no_line_of_its_own_into_the_log() {
        assert_eq!(printable("GET\nERROR \u{1b}[31m"), "GET\\nERROR \\u{1b}[31m");
        assert_eq!(printable("José \"x\" 😀"), "José \"x\" 😀");
        assert_eq!(printable(&"x".repeat(9_000)).len(), PART_MAX_CHARS);
    }
}
