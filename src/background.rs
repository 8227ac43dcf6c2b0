//! What the service does beside its requests: opening the store, reaching a database that does not
//! answer, ending waits, watching rows, sweeping. Each function is a
//! thread's life, until the service stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use log::{debug, info, warn};

use crate::doctor::Finding;
use crate::http::api::Api;
use crate::metrics::METRICS;
use crate::store::{Opened, Store, Swept};
use crate::systemd;

/// Between two tries to reach the database at the start.
const OPEN_PERIOD: Duration = Duration::from_millis(500);

/// How exactly waits end, and how soon after its expiry a lease is taken over by who waits for it.
pub const TICK_PERIOD: Duration = Duration::from_millis(10);

/// Between two looks at the rows that are waited for: together with the look, a release through
/// another server reaches a waiter within 300 ms.
const WATCH_PERIOD: Duration = Duration::from_millis(150);

/// How long a thread that serves waiters sleeps when there are none; it is woken by the first.
pub const IDLE_PATIENCE: Duration = Duration::from_secs(3_600);

/// Between two sweeps: rows are swept minutes after their expiry, so nobody notices one more.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// Between two pages of a sweep, so that it is in nobody's way.
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

/// Tries until the store is open.
pub fn open(store: &Store, stopping: &AtomicBool) -> Result<(), Vec<Finding>> {
    let mut last_reason = String::new();
    while !stopping.load(Ordering::Relaxed) {
        match store.open() {
            Opened::Ready(warnings) => {
                for finding in warnings {
                    warn!("{} {}", finding.topic, finding.text);
                }
                info!("ready");
                systemd::tell_status("ready");
                return Ok(());
            }
            Opened::Unusable(findings) => return Err(findings),
            Opened::NotYet(reason) => {
                if reason != last_reason {
                    warn!("not ready: {reason}; trying on");
                    systemd::tell_status(&format!("not ready: {reason}"));
                    last_reason = reason;
                }
                thread::sleep(OPEN_PERIOD);
            }
        }
    }
    Ok(())
}

/// Ends outages: refuses what comes meanwhile, and notices when the database answers again.
pub fn tend(store: &Store, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Relaxed) {
        store.tend(IDLE_PATIENCE);
    }
}

/// Ends waits in time, and gives lines their turn when a lease expires; rings if a worker has
/// something to do.
pub fn tick(api: &Api, stopping: &AtomicBool, ring: impl Fn()) {
    while_anybody_waits(api, stopping, TICK_PERIOD, || {
        if api.tick() {
            ring();
        }
    });
}

/// Notices what other servers and old programs do to sessions that are waited for; rings if a
/// worker has something to do.
pub fn watch(api: &Api, stopping: &AtomicBool, ring: impl Fn()) {
    while_anybody_waits(api, stopping, WATCH_PERIOD, || {
        if api.watch() {
            ring();
        }
    });
}

fn while_anybody_waits(api: &Api, stopping: &AtomicBool, period: Duration, look: impl Fn()) {
    while !stopping.load(Ordering::Relaxed) {
        if api.wait_for_waiters(IDLE_PATIENCE) {
            look();
            thread::sleep(period);
        }
    }
}

/// Deletes what crashed holders left, if their customers never write again, and records of
/// messages that nobody delivers any more.
pub fn sweep(store: &Store, stopping: &AtomicBool, message_retention: Duration) {
    while !stopping.load(Ordering::Relaxed) {
        let mut after = Some(0);
        while let Some(page) = after {
            let swept = store.sweep(page);
            match &swept {
                Ok(Swept { rows: 0, .. }) => {}
                Ok(Swept { rows, .. }) => {
                    METRICS.overruns.inc_by(*rows);
                    info!("swept {rows} rows of crashed holders");
                }
                Err(error) => debug!("could not sweep: {error}"),
            }
            after = swept.ok().and_then(|swept| swept.next);
            thread::sleep(SWEEP_PAUSE);
        }
        forget_messages(store, stopping, message_retention);
        store.measure();
        thread::sleep(SWEEP_PERIOD);
    }
}

fn forget_messages(store: &Store, stopping: &AtomicBool, retention: Duration) {
    let mut records = 0;
    while !stopping.load(Ordering::Relaxed) {
        match store.forget_messages(retention) {
            Ok(0) => break,
            Ok(forgotten) => records += forgotten,
            Err(error) => {
                debug!("could not forget messages: {error}");
                break;
            }
        }
        thread::sleep(SWEEP_PAUSE);
    }
    if records > 0 {
        info!("forgot {records} messages that were answered long ago");
    }
}
