//! Notifies systemd that the service is ready, and feeds its watchdog (`Type=notify`,
//! `WatchdogSec`). Does nothing without systemd.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use log::debug;
use sd_notify::NotifyState;

/// Pause between checks while the service does not answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How often the watchdog is fed within its timeout, so that one answer may be late.
const FEEDS_PER_TIMEOUT: u32 = 3;

/// Whether systemd, or another supervisor, listens.
pub fn listens() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Sets the text that `systemctl status` shows.
pub fn tell_status(status: &str) {
    tell(&NotifyState::Status(status));
}

/// Reports that the service is about to end.
pub fn tell_stopping() {
    tell(&NotifyState::Stopping);
}

/// Reports the service as ready once `answers` has returned true, and feeds the watchdog as long as
/// `answers` returns true, until the service stops. `answers` sends a request to the service, as a
/// client would.
pub fn report(answers: impl Fn() -> bool, stopping: &AtomicBool) {
    let interval = sd_notify::watchdog_enabled().map(|timeout| timeout / FEEDS_PER_TIMEOUT);
    let mut is_ready = false;
    loop {
        let answered = answers();
        if answered && !is_ready {
            is_ready = true;
            tell(&NotifyState::Ready);
        }
        if answered && interval.is_some() {
            tell(&NotifyState::Watchdog);
        }
        let wait = match interval {
            Some(interval) if answered => interval,
            None if answered => return,
            _ => RETRY_INTERVAL,
        };
        thread::sleep(wait);
        if stopping.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn tell(state: &NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        debug!("could not tell systemd {state}: {error}");
    }
}
