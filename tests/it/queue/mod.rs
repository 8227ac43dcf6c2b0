//! Acquires that wait for a held session, and requests that wait for a worker.

mod order;
mod slow_database;
mod waiting;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[order::TESTS, slow_database::TESTS, waiting::TESTS];
