//! The database is slow, locked, unreachable or broken: every request ends soon, and nothing is
//! granted wrongly.

mod connections;
mod errors;
mod failover;
mod health;
mod lost_answers;
pub mod quorum;
mod row_locks;
mod startup;
mod tls;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[
    connections::TESTS,
    errors::TESTS,
    failover::TESTS,
    health::TESTS,
    lost_answers::TESTS,
    row_locks::TESTS,
    startup::TESTS,
    tls::TESTS,
];
