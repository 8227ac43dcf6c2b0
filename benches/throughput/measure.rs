//! The loop that measures every row of the table.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a row is measured: `BENCH_SECONDS` changes it.
const SECONDS: u64 = 3;

/// How long its clients run before that.
const WARM_UP: Duration = Duration::from_millis(700);

/// A number in the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Acquires and releases the conversation of this number.
pub type Client = Box<dyn FnMut(u64) -> Result<(), String> + Send>;

/// One row of the table: creates the client with this number.
pub type Row<'a> = Box<dyn Fn(usize) -> Client + Sync + 'a>;

pub struct Measured {
    pub pairs_per_s: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub errors: u64,
}

/// How long a row is measured.
pub fn duration() -> Duration {
    Duration::from_secs(setting("BENCH_SECONDS", SECONDS))
}

/// Runs this many clients of a row.
pub fn measure(row: &Row, clients: usize) -> Measured {
    let (go, over) = (Barrier::new(clients + 1), AtomicBool::new(false));
    let counting = AtomicBool::new(false);
    let (mut times, mut errors, mut took) = (Vec::new(), 0, Duration::ZERO);
    thread::scope(|scope| {
        let running: Vec<_> = (0..clients)
            .map(|number| {
                let (go, over, counting) = (&go, &over, &counting);
                scope.spawn(move || {
                    let mut client = row(number);
                    let (mut times_us, mut errors) = (Vec::new(), 0_u64);
                    go.wait();
                    while !over.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        let done = client(next());
                        if counting.load(Ordering::Relaxed) {
                            match done {
                                Ok(()) => times_us.push(us_since(began)),
                                Err(_) => errors += 1,
                            }
                        }
                    }
                    (times_us, errors)
                })
            })
            .collect();
        go.wait();
        thread::sleep(WARM_UP);
        let began = Instant::now();
        counting.store(true, Ordering::Relaxed);
        thread::sleep(duration());
        over.store(true, Ordering::Relaxed);
        took = began.elapsed();
        for client in running {
            let (client_times, client_errors) = client.join().unwrap();
            times.extend(client_times);
            errors += client_errors;
        }
    });
    summary(times, errors, took)
}

pub fn us_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap()
}

pub fn summary(mut times_us: Vec<u64>, errors: u64, took: Duration) -> Measured {
    times_us.sort_unstable();
    let at = |percent: usize| times_us.get(times_us.len() * percent / 100).copied().unwrap_or(0);
    Measured {
        pairs_per_s: u64::try_from(times_us.len() as u128 * 1_000 / took.as_millis()).unwrap(),
        p50_us: at(50),
        p99_us: at(99),
        errors,
    }
}

/// A number that no client has used yet.
pub fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The customer with this number, in no particular order.
pub fn prospect(number: u64) -> String {
    format!("60{:010}", number.wrapping_mul(2_654_435_761) % 10_000_000_000)
}
