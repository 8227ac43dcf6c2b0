//! Batches, packets of statements, the ids of rows, the model's table, and the spellings of ids.

mod batch;
mod ids;
mod packet;
mod simulated_table;
mod spelling;
mod table_changes;
mod triggers;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[
    batch::TESTS,
    ids::TESTS,
    packet::TESTS,
    simulated_table::TESTS,
    spelling::TESTS,
    table_changes::TESTS,
    triggers::TESTS,
];
