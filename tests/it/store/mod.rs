//! Batches, packets of statements, and the ids of rows.

mod batch;
mod ids;
mod packet;
mod triggers;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[batch::TESTS, ids::TESTS, packet::TESTS, triggers::TESTS];
