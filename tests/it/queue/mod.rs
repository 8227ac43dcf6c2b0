//! Acquires that wait for a held session.

mod waiting;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[waiting::TESTS];
