//! The rules of a lease and of its messages.

mod acquire;
mod commit;
mod list_and_read;
mod message;
mod message_table;
mod moving_from_old_lock;
mod old_programs;
mod races;
mod redelivery;
mod release;
mod renew;
mod session;
mod step_orders;
mod token;
mod ttl;
mod webhooks;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[
    acquire::TESTS,
    commit::TESTS,
    list_and_read::TESTS,
    message::TESTS,
    message_table::TESTS,
    moving_from_old_lock::TESTS,
    old_programs::TESTS,
    races::TESTS,
    redelivery::TESTS,
    release::TESTS,
    renew::TESTS,
    session::TESTS,
    step_orders::TESTS,
    token::TESTS,
    ttl::TESTS,
    webhooks::TESTS,
];
