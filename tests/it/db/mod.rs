//! The database is slow, unreachable or broken.

mod errors;
mod health;
mod tls;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[errors::TESTS, health::TESTS, tls::TESTS];
