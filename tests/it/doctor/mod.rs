//! What `serve` and `check` report about a database: what is wrong, and what to do.

mod check;
mod server;
mod table;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[check::TESTS, server::TESTS, table::TESTS];
