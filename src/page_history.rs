//! The last ten minutes of this server, kept in memory: the operator's page shows what happened
//! before it was opened. The history contains no owner token.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntCounterVec;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use serde_json::{Value, json};

use crate::lease::Session;
use crate::metrics::{METRICS, Metrics};

/// Pause between samples: short enough to show an outage of seconds.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Ten minutes of samples: as many as a small graph on a phone can show.
const SAMPLES_MAX: usize = 120;

/// As many events as a person reads, in at most 200 KiB.
const EVENTS_MAX: usize = 100;

/// What a sample counts: a name, and the sum of counters.
type Count = (&'static str, fn(&Metrics) -> u64);

#[rustfmt::skip]
const COUNTS: [Count; 11] = [
    ("granted",         |metrics| sum(&metrics.acquires, &["new", "takeover", "again"])),
    ("refused",         |metrics| sum(&metrics.acquires, &["held"])),
    ("duplicate",       |metrics| sum(&metrics.acquires, &["duplicate"]) + sum(&metrics.commits, &["duplicate"])),
    ("renewed",         |metrics| sum(&metrics.renews, &["renewed"])),
    ("committed",       |metrics| sum(&metrics.commits, &["new", "again"])),
    ("released",        |metrics| sum(&metrics.releases, &["released", "forced"])),
    ("lost",            |metrics| sum(&metrics.renews, &["lost", "max_hold"])
                                  + sum(&metrics.commits, &["lost"]) + sum(&metrics.releases, &["lost"])),
    ("failed",          |metrics| [&metrics.acquires, &metrics.renews, &metrics.commits, &metrics.releases]
                                  .iter().map(|counters| sum(counters, &["failed"])).sum()),
    ("takeovers",       |metrics| sum(&metrics.acquires, &["takeover"])),
    ("overruns",        |metrics| metrics.overruns.get()),
    ("database_errors", |metrics| total(&metrics.database_errors)),
];

fn sum(counters: &IntCounterVec, outcomes: &[&str]) -> u64 {
    outcomes.iter().map(|outcome| counters.with_label_values(&[*outcome]).get()).sum()
}

/// The sum over all values of the label.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counters of whole numbers
fn total(counters: &IntCounterVec) -> u64 {
    let families = counters.collect();
    let counters = families.iter().flat_map(MetricFamily::get_metric);
    counters.map(|metric| metric.get_counter().get_value() as u64).sum()
}

/// The history of this process.
pub static HISTORY: LazyLock<History> = LazyLock::new(History::new);

/// An event of a session that an operator should know about.
#[derive(Clone, Copy)]
pub enum Event {
    /// A lease was granted over a stale row.
    Takeover,
    /// The row of a crashed holder was deleted, because no worker acquired the session for minutes.
    Swept,
    /// An operator released the lease by force.
    Forced,
}

impl Event {
    fn word(self) -> &'static str {
        match self {
            Self::Takeover => "takeover",
            Self::Swept => "swept",
            Self::Forced => "forced",
        }
    }
}

/// An event in the history.
struct Noted {
    at: Instant,
    event: Event,
    /// Whether the event ended a lease, and not an old program's row.
    was_lease: bool,
    session: Session,
}

/// What happened since the previous sample.
struct Sample {
    at: Instant,
    counts: [u64; COUNTS.len()],
    /// How many acquires waited for a session at the end of the sample.
    waiting: usize,
    slowest_ms: u64,
}

/// The samples and events.
pub struct History {
    started: Instant,
    /// The slowest answer since the last sample.
    slowest_us: AtomicU64,
    kept: Mutex<Kept>,
}

struct Kept {
    sampled_at: Instant,
    /// The counters at the last sample.
    totals: [u64; COUNTS.len()],
    samples: VecDeque<Sample>,
    events: VecDeque<Noted>,
}

impl History {
    fn new() -> Self {
        let started = Instant::now();
        let kept = Kept {
            sampled_at: started,
            totals: [0; COUNTS.len()],
            samples: VecDeque::with_capacity(SAMPLES_MAX),
            events: VecDeque::with_capacity(EVENTS_MAX),
        };
        Self { started, slowest_us: AtomicU64::new(0), kept: Mutex::new(kept) }
    }

    /// Records how long an answer took.
    pub fn answered(&self, took: Duration) {
        let took_us = took.as_micros().try_into().unwrap_or(u64::MAX);
        self.slowest_us.fetch_max(took_us, Ordering::Relaxed);
    }

    /// Records an event.
    pub fn note(&self, event: Event, was_lease: bool, session: &Session) {
        let noted = Noted { at: Instant::now(), event, was_lease, session: session.clone() };
        push(&mut self.kept.lock().events, noted, EVENTS_MAX);
    }

    /// Takes a sample if one is due.
    pub fn sample_when_due(&self, waiting: impl Fn() -> usize) {
        let mut kept = self.kept.lock();
        if kept.sampled_at.elapsed() < SAMPLE_INTERVAL {
            return;
        }
        let totals = COUNTS.map(|(_, count)| count(&METRICS));
        let counts = std::array::from_fn(|at| totals[at] - kept.totals[at]);
        let slowest_ms = self.slowest_us.swap(0, Ordering::Relaxed).div_ceil(1_000);
        let sample = Sample { at: Instant::now(), counts, waiting: waiting(), slowest_ms };
        kept.sampled_at = sample.at;
        kept.totals = totals;
        push(&mut kept.samples, sample, SAMPLES_MAX);
    }

    /// The history: samples with the oldest first, events with the newest first.
    pub fn to_json(&self, waiting: usize) -> Value {
        let kept = self.kept.lock();
        let ago_ms = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let column = |value: &dyn Fn(&Sample) -> Value| kept.samples.iter().map(value).collect();
        let mut samples = json!({});
        samples["ago_ms"] = column(&|sample| ago_ms(sample.at).into());
        for (at, (name, _)) in COUNTS.iter().enumerate() {
            samples[*name] = column(&|sample| sample.counts[at].into());
        }
        samples["waiting"] = column(&|sample| sample.waiting.into());
        samples["slowest_ms"] = column(&|sample| sample.slowest_ms.into());
        let events = kept.events.iter().rev().map(|noted| {
            json!({
                "ago_ms": ago_ms(noted.at),
                "event": noted.event.word(),
                "legacy": !noted.was_lease,
                "id_prospect": noted.session.id_prospect.as_str(),
                "id_device": noted.session.id_device.as_str(),
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": ago_ms(self.started),
            "waiting": waiting,
            "samples": samples,
            "events": events.collect::<Vec<_>>(),
        })
    }
}

/// Appends an entry, and drops the oldest entry above the limit.
fn push<T>(kept: &mut VecDeque<T>, new: T, limit: usize) {
    if kept.len() == limit {
        kept.pop_front();
    }
    kept.push_back(new);
}
