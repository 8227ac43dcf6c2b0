//! The HTTP interface.

mod connections;
pub mod fields;
mod hostile_clients;
mod malformed_requests;

use crate::world::Test;

pub const TESTS: &[&[Test]] =
    &[connections::TESTS, fields::TESTS, hostile_clients::TESTS, malformed_requests::TESTS];
