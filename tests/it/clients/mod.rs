//! The clients to copy into a bot, each as its own program, against the real server.

mod asyncio;
mod gateways;
mod http_proxy;
mod languages;
mod late_answers;
mod n8n;
mod node;
mod old_go_functions;
mod php;
mod shell;
mod worker;
mod workflow;

use crate::world::Test;

pub use worker::DEAD_PROXY;

pub const TESTS: &[&[Test]] = &[
    asyncio::TESTS,
    gateways::TESTS,
    languages::TESTS,
    late_answers::TESTS,
    n8n::TESTS,
    node::TESTS,
    old_go_functions::TESTS,
    php::TESTS,
    shell::TESTS,
];
