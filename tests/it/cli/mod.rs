//! The commands, run as an operator runs them.

pub mod dev;
mod run;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[run::TESTS];
