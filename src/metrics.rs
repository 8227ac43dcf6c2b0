//! The metrics for Prometheus: `GET /metrics`. No label contains an id of a session.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

use crate::process_stats;

/// From an answer without the database to the slowest answer: 10 s.
const REQUEST_BUCKETS_S: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Up to the longest wait for a session: 25 s.
const WAIT_BUCKETS_S: [f64; 8] = [0.01, 0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 25.0];

/// A bot's work takes seconds; the default ttl is 30 s, the longest hold 15 min.
const HOLD_BUCKETS_S: [f64; 10] = [0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];

/// Up to [`crate::store::BATCH_MAX`].
const BATCH_BUCKETS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// The metrics of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Declares the metrics: field, type, constructor, name and help.
macro_rules! metrics {
    ($($field:ident: $type:ty = $make:ident($($argument:expr),+ $(,)?);)+) => {
        /// All metrics.
        pub struct Metrics {
            registry: Registry,
            $(pub $field: $type,)+
        }

        impl Metrics {
            fn new() -> Self {
                let registry = Registry::new_custom(Some("session_lock".to_owned()), None)
                    .expect("the prefix is valid");
                let made = Registered(&registry);
                let info = Opts::new("build_info", "Always 1; the version is in the label.");
                let info = info.const_label("version", env!("CARGO_PKG_VERSION"));
                made.add(IntGauge::with_opts(info)).set(1);
                Self { $($field: made.$make($($argument),+),)+ registry }
            }
        }
    };
}

metrics! {
    acquires: IntCounterVec = labelled(
        "acquires_total", "Answers to acquires.",
        "outcome", &["new", "takeover", "again", "held", "duplicate", "failed"],
    );
    renews: IntCounterVec = labelled(
        "renews_total", "Answers to renews.",
        "outcome", &["renewed", "lost", "max_hold", "failed"],
    );
    commits: IntCounterVec = labelled(
        "commits_total", "Answers to commits.",
        "outcome", &["new", "again", "lost", "duplicate", "failed"],
    );
    releases: IntCounterVec = labelled(
        "releases_total", "Answers to releases; forced and not_held are an operator's.",
        "outcome", &["released", "lost", "forced", "not_held", "failed"],
    );
    waiters: IntGauge = gauge("waiters", "Acquires in the queues now, with wait_ms or without.");
    wait: Histogram = histogram(
        "wait_seconds", "Time from an acquire's arrival to its grant.", &WAIT_BUCKETS_S,
    );
    hold: Histogram = histogram(
        "hold_seconds", "Time from grant to release, of leases that this server granted.", &HOLD_BUCKETS_S,
    );
    batch_size: Histogram = histogram(
        "batch_operations", "Operations in one batch for the database.", &BATCH_BUCKETS,
    );
    requests: HistogramVec = histogram_by_route(
        "request_seconds", "Time from receiving a request to its answer, with the wait for a session.",
    );
    database_up: IntGauge = gauge(
        "database_up",
        "1 while the database answers, 0 while requests are refused because it does not.",
    );
    database_errors: IntCounterVec = labelled(
        "database_errors_total", "Errors of the database.",
        "kind", &["lost", "deadlock", "locked", "read_only", "denied", "refused"],
    );
    connections_opened: IntCounter = counter(
        "database_connections_opened_total", "Connections to the database that were opened.",
    );
    deadlock_retries: IntCounter = counter(
        "deadlock_retries_total", "Batches that were run again after a deadlock.",
    );
    leases_held: IntGauge = gauge(
        "leases_held",
        "Leases held in the whole table at its last sweep: up to a minute ago, longer while the database does not answer.",
    );
    overruns: IntCounter = counter(
        "overruns_total",
        "Leases that ended by expiry instead of release: their holder crashed or overran.",
    );
    legacy_rows_seen: IntCounter = counter(
        "legacy_rows_seen_total", "Acquires that met an old program's row.",
    );
    ids_used: Gauge = float_gauge(
        "ids_used_ratio", "Used share of the lock table's AUTO_INCREMENT ids, updated each minute.",
    );
    clock_difference: Gauge = float_gauge(
        "clock_difference_seconds", "The database's clock less this machine's, updated each minute.",
    );
    zone_difference: IntGauge = gauge(
        "time_zone_difference_seconds",
        "The database's own time zone less SESSION_LOCK_TIME_ZONE, if they agreed at the start; updated each minute. If it is not 0, old programs' rows are dated in another zone than ours.",
    );
    left_behind: IntGauge = gauge(
        "connections_left_behind",
        "Connections with a forged body length, which only a restart frees. The service restarts if there are too many.",
    );
    cut_off: IntCounter = counter(
        "clients_cut_off_total",
        "Clients that sent an endless head, sent too much at once, or did not read their answers.",
    );
}

impl Metrics {
    /// Counts the answer to a request.
    pub fn answered(&self, route: &str, took: Duration) {
        self.requests.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.expect("our own metrics can be encoded") + &process_stats::metrics_text()
    }
}

/// Makes metrics and registers them.
struct Registered<'a>(&'a Registry);

impl Registered<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("our names and labels are valid");
        let registered = self.0.register(Box::new(collector.clone()));
        registered.expect("our names are unique");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histogram_by_route(&self, name: &str, help: &str) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(REQUEST_BUCKETS_S.to_vec());
        self.add(HistogramVec::new(options, &["route"]))
    }

    /// A counter for each value of its label. Each counter is visible before its first event.
    fn labelled(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
        let counters = self.add(IntCounterVec::new(Opts::new(name, help), &[label]));
        for value in values {
            counters.with_label_values(&[*value]);
        }
        counters
    }
}
