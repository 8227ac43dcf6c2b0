//! Every test of the service, run on MariaDB and on MySQL through the real binary and real HTTP.
//! `DATABASES=mariadb-10.5,mariadb-11.8` in the environment chooses other versions.
//! The folders and files have the names of the modules in `src` that they test.
//!
//! A test is a function that takes a [`World`](world::World): the service on one of the two
//! databases. The databases are private servers, each started before its first test and stopped
//! after the last. `tests/install mariadb mysql` installs them, and `tests/install languages` the
//! programs for the clients in other languages. With `FAIL_FAST` in the environment, no test begins
//! after a failure.

mod alerts;
mod background;
mod cli;
mod clients;
mod db;
mod doctor;
mod http;
mod lease;
mod logging;
mod metrics;
mod page_history;
mod queue;
mod store;
mod systemd;
mod world;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use world::{Engine, World};

/// How many tests run at once. They mostly wait, so this is more than the number of processors.
const TEST_THREADS: usize = 6;

/// Tests that need the processors for themselves: their clients send without end, and beside other
/// tests they send faster than the service can receive. These tests run last, one at a time.
const ALONE: &str = "::http::hostile_clients::";

/// Far longer than any test takes on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(240);

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(TEST_THREADS);
    let modules = [
        cli::TESTS,
        clients::TESTS,
        db::TESTS,
        doctor::TESTS,
        http::TESTS,
        lease::TESTS,
        queue::TESTS,
        store::TESTS,
        &[alerts::TESTS, background::TESTS, page_history::TESTS, logging::TESTS],
        &[metrics::TESTS, systemd::TESTS],
    ];
    let mut trials = Vec::new();
    let mut worlds = Vec::new();
    for engine in Engine::tested() {
        let world = Arc::new(LazyLock::new(move || World::start(engine)));
        for (name, run) in modules.iter().copied().flatten().copied().flatten() {
            let world = Arc::clone(&world);
            // it::lease::release::a_stale_holder_cannot_release becomes
            // mariadb::lease::release::a_stale_holder_cannot_release
            let name = name.replacen("it", engine.name(), 1);
            trials.push(trial(name, move || run(&world)));
        }
        worlds.push(world);
    }
    trials.extend(
        cli::dev::TESTS
            .iter()
            .chain(db::quorum::TESTS)
            .map(|(name, run)| trial(name.replacen("it::", "", 1), run)),
    );
    let (alone, together) = trials.into_iter().partition(|trial| trial.name().contains(ALONE));
    let together = libtest_mimic::run(&arguments, together);
    arguments.test_threads = Some(1);
    let alone = libtest_mimic::run(&arguments, alone);
    // Stops the databases, which `exit` would not do.
    drop(worlds);
    together.exit_if_failed();
    alone.exit();
}

/// Runs a test in its own thread, which has the test's name. A test that hangs fails, and the
/// others continue.
fn trial(name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    static HAS_FAILED: AtomicBool = AtomicBool::new(false);
    Trial::test(name.clone(), move || {
        if HAS_FAILED.load(Ordering::Relaxed) && std::env::var_os("FAIL_FAST").is_some() {
            return Err(Failed::from("not run, because another has failed"));
        }
        let (done, finished) = channel::<()>();
        let test = thread::Builder::new().name(name).spawn(move || {
            let _done = done;
            run();
        })?;
        let is_over = finished.recv_timeout(TEST_TIMEOUT) != Err(RecvTimeoutError::Timeout);
        let end = is_over.then(|| test.join());
        HAS_FAILED.fetch_or(!matches!(end, Some(Ok(()))), Ordering::Relaxed);
        match end {
            // The panic is resumed here, so that it is printed with its test at the end.
            Some(end) => end.map_err(|panic| resume_unwind(panic)),
            None => Err(format!("it hangs, after {TEST_TIMEOUT:?}").into()),
        }
    })
}
