//! The background work of the service: one table of jobs. Each job has its own thread and runs
//! until the service stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use log::{debug, info, warn};

use crate::db::TLS;
use crate::doctor::Finding;
use crate::metrics::METRICS;
use crate::page_history::{Event, HISTORY};
use crate::service::Service;
use crate::store::{Opened, Store, Swept};
use crate::systemd;

/// Pause between attempts to reach the database at the start.
const OPEN_INTERVAL: Duration = Duration::from_millis(500);

/// The precision of the ends of waits, and of takeovers after an expiry.
const TICK_INTERVAL: Duration = Duration::from_millis(10);

/// Pause between reads of the rows that waiters wait for. With the time of a read, a release
/// through another server reaches a waiter within 300 ms.
const WATCH_INTERVAL: Duration = Duration::from_millis(150);

/// Rows are swept minutes after their expiry, so one more minute does not matter.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Pause between pages of a sweep, so that a sweep does not slow down requests.
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

/// When a job runs.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// While any acquire waits for a session.
    SomebodyWaits,
    /// Always: the job itself waits until there is something to do.
    Always,
    /// Always, after the job has opened the store.
    AfterOpening,
}

/// A job.
pub struct Job {
    /// The name of its thread.
    pub name: &'static str,
    when: When,
    /// The pause between two runs.
    interval: Duration,
    run: fn(&Context),
}

/// What the jobs work on.
pub struct Context<'a> {
    pub service: &'a Service,
    pub stopping: &'a AtomicBool,
    /// Wakes a worker.
    pub wake: &'a dyn Fn(),
    pub message_retention: Duration,
}

/// All jobs.
#[rustfmt::skip]
pub const JOBS: [Job; 4] = [
    Job { name: "timer",   when: When::SomebodyWaits, interval: TICK_INTERVAL,  run: end_waits },
    Job { name: "watcher", when: When::SomebodyWaits, interval: WATCH_INTERVAL, run: watch_rows },
    Job { name: "sweeper", when: When::AfterOpening,  interval: SWEEP_INTERVAL, run: sweep },
    Job { name: "health",  when: When::Always,        interval: Duration::ZERO, run: check_health },
];

impl Job {
    /// Runs the job until the service stops.
    ///
    /// # Errors
    /// Returns the problems of the database or its table if the store cannot be opened.
    pub fn run(&self, context: &Context) -> Result<(), Vec<Finding>> {
        if self.when == When::AfterOpening {
            open(context.service.store(), context.stopping)?;
        }
        while !context.stopping.load(Ordering::Relaxed) {
            if self.when == When::SomebodyWaits {
                context.service.wait_for_waiters();
            }
            (self.run)(context);
            thread::sleep(self.interval);
        }
        Ok(())
    }
}

/// Tries to open the store until it is open or the service stops.
fn open(store: &Store, stopping: &AtomicBool) -> Result<(), Vec<Finding>> {
    let mut last_reason = String::new();
    while !stopping.load(Ordering::Relaxed) {
        match store.open() {
            Opened::Ready => {
                info!("ready");
                systemd::tell_status("ready");
                return Ok(());
            }
            // If the service ended, systemd would restart it each second, until the database blocks
            // this machine.
            Opened::Unusable(findings)
                if systemd::listens() && findings.iter().all(|finding| finding.topic == TLS) =>
            {
                let texts: Vec<_> = findings.into_iter().map(|finding| finding.text).collect();
                wait_on(texts.join("; "), &mut last_reason);
            }
            Opened::Unusable(findings) => return Err(findings),
            Opened::NotYet(reason) => wait_on(reason, &mut last_reason),
        }
    }
    Ok(())
}

/// Logs why the store is not open, if the reason is new, and waits for the next attempt.
fn wait_on(reason: String, last_reason: &mut String) {
    if reason != *last_reason {
        warn!("not ready: {reason}; retrying");
        systemd::tell_status(&format!("not ready: {reason}"));
        *last_reason = reason;
    }
    thread::sleep(OPEN_INTERVAL);
}

/// Refuses waiters whose wait is over, and gives sessions their turn when a lease expires.
fn end_waits(context: &Context) {
    if context.service.tick() {
        (context.wake)();
    }
}

/// Detects changes by other servers and old programs to the rows that waiters wait for.
fn watch_rows(context: &Context) {
    if context.service.watch() {
        (context.wake)();
    }
}

/// Checks a database that seems to be down, and detects when it answers again.
fn check_health(context: &Context) {
    context.service.store().check_health();
}

/// Deletes rows of crashed holders that no acquire has taken over, and records of messages that no
/// provider delivers any more. Updates the metrics that change slowly.
fn sweep(context: &Context) {
    let store = context.service.store();
    let (mut after, mut held) = (Some(i64::MIN), 0);
    while let Some(page) = after {
        after = match store.sweep(page) {
            Ok(Swept { sessions, held: on_page, refused, next }) => {
                held += on_page;
                if next.is_none() {
                    METRICS.leases_held.set(held);
                }
                if !sessions.is_empty() {
                    METRICS.overruns.inc_by(sessions.len() as u64);
                    info!("swept {} rows of crashed holders", sessions.len());
                }
                if let Some(cause) = refused {
                    warn!("a crashed holder's row cannot be deleted: {cause}");
                }
                for session in &sessions {
                    HISTORY.note(Event::Swept, true, session);
                }
                next
            }
            Err(error) => {
                debug!("could not sweep: {error}");
                None
            }
        };
        thread::sleep(SWEEP_PAUSE);
    }
    forget_messages(context);
    store.measure();
}

fn forget_messages(context: &Context) {
    let mut records = 0;
    while !context.stopping.load(Ordering::Relaxed) {
        match context.service.store().forget_messages(context.message_retention) {
            Ok(0) => break,
            Ok(forgotten) => records += forgotten,
            Err(error) => {
                debug!("could not delete old records of messages: {error}");
                break;
            }
        }
        thread::sleep(SWEEP_PAUSE);
    }
    if records > 0 {
        info!("deleted {records} old records of answered messages");
    }
}
