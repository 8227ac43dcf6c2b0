//! The database is slow, locked, unreachable or broken: every request ends soon, and nothing is
//! granted wrongly.

mod addresses;
mod connections;
mod errors;
mod failover;
mod health;
mod login;
mod lost_answers;
pub mod proxies;
pub mod quorum;
mod row_locks;
mod startup;
mod tls;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[
    addresses::TESTS,
    connections::TESTS,
    errors::TESTS,
    failover::TESTS,
    health::TESTS,
    login::TESTS,
    lost_answers::TESTS,
    proxies::TESTS,
    row_locks::TESTS,
    startup::TESTS,
    tls::TESTS,
];
