//! What `serve` and `check` report about a database.

mod check;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[check::TESTS];
