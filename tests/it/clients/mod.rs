//! The clients in `clients/`.

mod languages;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[languages::TESTS];
