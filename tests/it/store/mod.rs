//! Packets, batches and row ids.

mod batch;
mod ids;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[batch::TESTS, ids::TESTS];
