//! The rules of a lease.

mod acquire;
mod list_and_read;
mod message;
mod moving_from_old_lock;
mod old_programs;
mod races;
mod redelivery;
mod renew;
mod webhooks;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[
    acquire::TESTS,
    list_and_read::TESTS,
    message::TESTS,
    moving_from_old_lock::TESTS,
    old_programs::TESTS,
    races::TESTS,
    redelivery::TESTS,
    renew::TESTS,
    webhooks::TESTS,
];
