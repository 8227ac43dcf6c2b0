//! The commands, run as an operator runs them.

mod client;
mod commands;
pub mod dev;
mod run;
mod terminal;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[client::TESTS, commands::TESTS, run::TESTS, terminal::TESTS];
