//! What the system knows about this process: proc(5).

use std::fmt::Write;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Ticks per second in `/proc`, regardless of the kernel's own rate.
const TICKS_PER_S: f64 = 100.0;

/// How many threads and pages of memory the process has.
pub struct ProcessSize {
    pub threads: u64,
    pub pages: u64,
}

impl ProcessSize {
    /// Reads the size. What cannot be read is 0.
    pub fn now() -> Self {
        let fields = Fields::read();
        Self { threads: fields.number(18), pages: fields.number(22) }
    }
}

/// The fields of `/proc/self/stat` that follow the name, which may contain spaces.
struct Fields(String);

impl Fields {
    fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self(stat.rsplit(')').next().unwrap_or_default().to_owned())
    }

    fn number(&self, at: usize) -> u64 {
        self.0.split(' ').nth(at).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn seconds(&self, at: usize) -> f64 {
        float(self.number(at)) / TICKS_PER_S
    }
}

#[allow(clippy::cast_precision_loss)] // far below 2^53
fn float(number: u64) -> f64 {
    number as f64
}

/// The metrics of this process, under the standard names of Prometheus clients.
pub fn metrics_text() -> String {
    let fields = Fields::read();
    let open_fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let max_fds = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, float);
    // A unit with ProcSubset=pid has no /proc/stat, which would say when the machine started.
    let uptime = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = now.saturating_sub(uptime).as_secs_f64() + fields.seconds(20);
    #[rustfmt::skip]
    let metrics = [
        ("process_resident_memory_bytes", "gauge", "Resident memory of the process, in bytes.", float(fields.number(22) * page_size() as u64)),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory of the process, in bytes.", float(fields.number(21))),
        ("process_threads", "gauge", "Threads of the process.", float(fields.number(18))),
        ("process_open_fds", "gauge", "Open file descriptors.", float(open_fds as u64)),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors.", max_fds),
        ("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.", started),
        ("process_cpu_seconds_total", "counter", "CPU time that the process has used, in seconds.", fields.seconds(12) + fields.seconds(13)),
    ];
    metrics.iter().fold(String::new(), |mut text, (name, kind, help, value)| {
        // Writing to memory does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        text
    })
}
