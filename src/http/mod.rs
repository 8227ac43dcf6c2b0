//! HTTP: the listener, requests in, responses out.

pub mod api;
mod fields;
pub mod listener;
pub mod server;
