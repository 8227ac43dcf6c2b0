//! The HTTP interface and the sockets that it listens on.

mod attacks;
mod connections;
mod fields;
mod hostile_clients;
mod keep_alive;
mod malformed_requests;
mod nginx;
mod openapi;
mod page;
mod pipelining;
mod refused_bodies;
mod resource_use;
mod routes;
mod shutdown;
mod unix_socket;

use crate::world::Test;

pub const TESTS: &[&[Test]] = &[
    connections::TESTS,
    fields::TESTS,
    hostile_clients::TESTS,
    malformed_requests::TESTS,
    nginx::TESTS,
    openapi::TESTS,
    page::TESTS,
    pipelining::TESTS,
    refused_bodies::TESTS,
    resource_use::TESTS,
    routes::TESTS,
    shutdown::TESTS,
    unix_socket::TESTS,
];
