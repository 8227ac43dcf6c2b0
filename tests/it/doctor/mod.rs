//! What `serve` and `check` report about a database: problems and remedies.

mod check;
mod columns;
mod keys;
mod migrate;
mod repair;
mod server;
mod table;
mod tables;
mod test_write;

use crate::world::Test;

pub const TESTS: &[&[Test]] =
    &[check::TESTS, migrate::TESTS, repair::TESTS, server::TESTS, table::TESTS, test_write::TESTS];
