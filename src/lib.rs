//! One worker at a time per chat conversation.
//!
//! session-lock gives exactly one worker the right to a conversation, a *lease*, and keeps it in
//! the bot's own MySQL or MariaDB table.
//!
//! # The map
//!
//! Each room uses only those below it:
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`] | one file a command, settings, exit statuses, the HTTP client of `list`, `release` and `run` |
//! | [`http`] | the server's threads, the table of routes, requests in, answers out |
//! | [`background`] | one table of the jobs beside the requests: end waits, watch rows, sweep, check health |
//! | [`service`] | an operation takes its turn and is answered |
//! | [`queue`] | who waits for which session |
//! | [`store`] | a batch of operations in, a batch of answers out: packets, retries, list, watch, sweep |
//! | [`lease`] | the words and the rules, one file a verb: what the rows that were read mean |
//! | [`doctor`] | `check`: facts are read once, and each finding is a small function of them |
//! | [`db`] | pool, connection, statements, kinds of errors, health, `KILL` |
//! | [`containment`] | what `tiny_http` does badly, each fault in a file of its own |
//! | [`net`] | the listener and the connections that it accepted |
//! | [`metrics`], [`logging`], [`systemd`], [`config`] | what the rooms share |
//!
//! The statements are in the folder `sql/`, one a file: they are the protocol's specification. The tests in
//! `tests/it/` are in the same rooms.
//!
//! # The life of a request
//!
//! 1. A worker receives it from `tiny_http`, together with all others that are there
//!    (`http/workers.rs`), and finds its row in the table of routes (`http/routes.rs`).
//! 2. Its fields become an operation (`http/requests.rs`), which joins its session's queue
//!    (`service/mod.rs`, `queue/mod.rs`).
//! 3. The worker takes the turns that are ready, at most one a session, and runs them as one transaction
//!    (`store/batch.rs`, with statements from `store/packet.rs`).
//! 4. The rows that the transaction reads back are told apart (`store/reply.rs`), and the file of the verb
//!    decides what they mean (`lease/acquire.rs`, `renew.rs`, `commit.rs`, `release.rs`).
//! 5. The queue learns what follows: the next waiter has its turn, or waits on (`service/turns.rs`).
//! 6. The outcome becomes status, JSON, log line and counter (`http/answers.rs`), and is sent.

mod background;
mod cli;
mod config;
mod containment;
mod db;
mod doctor;
mod http;
mod lease;
mod logging;
mod metrics;
mod net;
mod queue;
mod service;
mod store;
mod systemd;

pub use cli::main;

/// What the tests and the benchmarks use of the library; nothing else is public.
pub mod testing {
    pub use crate::cli::private_database::{DATABASE, PrivateDatabase};
    pub use crate::http::{Parsed, Request, Response, Routed, Router, WAIT_MAX_MS};
    pub use crate::lease::{
        Acquire, FencingToken, Id, OwnerToken, Release, STORED_CHARS, Session, StoredLease,
        TTL_MAX_MS, TTL_MIN_MS, TokenOrigin, Ttl,
    };
    pub use crate::service::Service;
    pub use crate::store::{FirstPacket, Opened, Operation, Store};
}
