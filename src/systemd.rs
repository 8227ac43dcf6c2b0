//! What systemd is told: that the service answers, and goes on answering (`Type=notify`,
//! `WatchdogSec`). Without systemd, nothing.

use std::time::Duration;

use log::debug;
use sd_notify::NotifyState;

/// Between two tries to get an answer, as long as there was none.
const TRY_PERIOD: Duration = Duration::from_millis(100);

/// How often the watchdog is fed within its time: one answer may come late.
const FEEDS_PER_TIMEOUT: u32 = 3;

/// Whether systemd, or whoever started the service, listens.
pub fn listens() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// A word for `systemctl status`.
pub fn tell_status(status: &str) {
    tell(&NotifyState::Status(status));
}

/// That the service is about to end.
pub fn tell_stopping() {
    tell(&NotifyState::Stopping);
}

/// Tells that the service is up once `answers` has been true, and feeds the watchdog as long as it
/// is; ends when it is done with life. `answers` asks the service itself, as a client would.
pub fn report(answers: impl Fn() -> bool, pause: impl Fn(Duration) -> std::ops::ControlFlow<()>) {
    let period = sd_notify::watchdog_enabled().map(|timeout| timeout / FEEDS_PER_TIMEOUT);
    let mut is_ready = false;
    loop {
        let answered = answers();
        if answered && !is_ready {
            is_ready = true;
            tell(&NotifyState::Ready);
        }
        if answered && period.is_some() {
            tell(&NotifyState::Watchdog);
        }
        let wait = match period {
            Some(period) if answered => period,
            None if answered => return,
            _ => TRY_PERIOD,
        };
        if pause(wait).is_break() {
            return;
        }
    }
}

fn tell(state: &NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        debug!("could not tell systemd {state}: {error}");
    }
}
