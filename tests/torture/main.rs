//! Everything fails at once, on both databases: many clients on few conversations, two or three
//! servers, and a database, a network and servers that die, hang and come back. What the clients
//! observed is recorded and checked afterwards (`history`).
//!
//! `SECONDS` and `SEED` in the environment say how long and with which random numbers, `GALERA` and
//! `GROUP` for how many seconds a cluster of either kind is tested afterwards; `make torture` sets
//! them.

mod cases;
mod client;
mod cluster;
mod conversation;
mod faults;
mod form;
mod galera;
mod group;
mod history;
mod judge;
mod leases;
mod lines;
mod pieces;
mod report;
mod run;
mod spec;
#[allow(dead_code, unused_macros, unused_imports)]
#[path = "../it/world/mod.rs"]
mod world;

use std::thread;
use std::time::Duration;

use galera::Galera;
use world::{Engine, Group, MariaDb};

/// How long it takes by default, in CI: both databases side by side.
const SECONDS_DEFAULT: u64 = 120;

/// The least number of operations on both databases together, in [`SECONDS_DEFAULT`].
const OPERATIONS_LEAST: u64 = 20_000;

fn main() {
    let number = |name, default| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.map_or(default, |value| value.parse().expect("they are numbers"))
    };
    history::check_the_checker();
    cases::check_the_judge();
    if let Some(file) = std::env::var_os("HISTORY") {
        judge::judge_file("history", file.as_ref());
        return;
    }
    let seconds = number("SECONDS", SECONDS_DEFAULT);
    let seed = number("SEED", fastrand::u64(..1_000_000));
    println!("torture: SECONDS={seconds} SEED={seed}");
    let lasts = Duration::from_secs(seconds);
    let operations: u64 = thread::scope(|scope| {
        let runs = [
            scope.spawn(|| faults::torture(Engine::MariaDb(MariaDb::Installed), 2, lasts, seed)),
            scope.spawn(|| faults::torture(Engine::MySql, 3, lasts, seed)),
        ];
        runs.into_iter().map(|run| run.join().expect("see above")).sum()
    });
    let least = OPERATIONS_LEAST * seconds / SECONDS_DEFAULT;
    assert!(operations >= least, "{operations} operations of {least}: too slow to find anything");
    cluster::torture::<Galera>(Duration::from_secs(number("GALERA", 0)), seed);
    cluster::torture::<Group>(Duration::from_secs(number("GROUP", 0)), seed);
}
