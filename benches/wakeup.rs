//! How soon a release reaches the first waiter: the time from the release's request to the next
//! worker's grant, through the real binary on a private database. `cargo bench --bench wakeup`.

#[allow(dead_code, unused_macros, unused_imports)]
#[path = "../tests/it/world/mod.rs"]
mod world;

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use session_lock::testing::PrivateDatabase;
use world::{Service, Session, migrate};

const ROUNDS: usize = 300;

/// After this time, the waiter is in the queue.
const WAITING_AFTER: Duration = Duration::from_millis(20);

fn main() {
    let database = PrivateDatabase::start_installed().unwrap_or_else(|error| panic!("{error}"));
    migrate(&database.url());
    let service = Service::start(&database.url(), &[]);
    let session = Session::new();
    let mut waits = Vec::new();
    for _ in 0..ROUNDS {
        let holder = service.hold(&session);
        let (granted, grant) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let lease = service.acquire_waiting(&session, 10_000);
                granted.send(Instant::now()).unwrap();
                service.release(&session, &lease.text("owner_token"));
            });
            thread::sleep(WAITING_AFTER);
            let released_at = Instant::now();
            service.release(&session, &holder);
            waits.push(grant.recv().unwrap() - released_at);
        });
    }
    waits.sort();
    println!(
        "from release to the next grant, {ROUNDS} times: median {:?}, p99 {:?}",
        waits[ROUNDS / 2],
        waits[ROUNDS * 99 / 100]
    );
}
