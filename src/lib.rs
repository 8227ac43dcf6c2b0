//! One worker at a time per chat conversation.
//!
//! session-lock gives exactly one worker the right to a conversation, a *lease*, and keeps it in
//! the bot's own MySQL or MariaDB table. Each module uses only those above it:
//!
//! | module | what it is |
//! |---|---|
//! | [`lease`] | the words: ids, tokens, leases, answers, and the 62 stored characters |
//! | [`metrics`] | what is counted, for Prometheus |
//! | [`journal`] | log lines, of a batch together |
//! | [`config`] | settings and their defaults |
//! | [`outage`] | whether the database answers, and what waits until it does |
//! | [`database`] | the way to the database: pool, statements, packets, errors |
//! | [`table`] | what the lock table must be like, and what is wrong with it |
//! | [`operation`] | one operation: what is seen decides what is written |
//! | `statements` | looks and writes as SQL, several operations in one packet |
//! | `memory` | leases and keys that are remembered, to spare a look |
//! | [`store`] | operations in, answers out: look, decide, write |
//! | [`waiters`] | who stands in line for which session |
//! | [`fields`] | the fields of a request |
//! | [`api`] | HTTP requests and answers as JSON |
//! | `unix_transport` | its way to a Unix socket |
//! | [`client`] | the other end of that interface |
//! | [`run`] | a command under a lease |
//! | [`door`] | the socket that is listened on, and those of its connections |
//! | [`systemd`] | what systemd is told |
//! | [`upkeep`] | what goes on beside the requests: opening, mending, waiting, taking back, sweeping |
//! | [`server`] | HTTP on that socket: `tiny_http`, worker threads, limits, stopping |
//! | [`dev`] | a private database for trying it out |
//!
//! The life of a request: a worker of [`server`] takes it from `tiny_http`, with all others that
//! wait, and hands their bytes to [`api`], which makes an [`Operation`](operation::Operation) of each.
//! An operation takes its turn in its session's line ([`waiters`]); those that have theirs at one time
//! run on the [`store`] together, as one transaction (acquires apart from the rest, while no worker
//! waits for requests), and each answer goes back through the request that asked. The statements are in the
//! folder `sql/`, one a file: they are the protocol's specification.

pub mod api;
pub mod client;
pub mod config;
pub mod database;
pub mod dev;
pub mod door;
pub mod fields;
pub mod journal;
pub mod lease;
pub mod metrics;
pub mod outage;
pub mod run;
pub mod server;
pub mod store;
pub mod systemd;
pub mod table;
mod unix_transport;
pub mod upkeep;
pub mod waiters;
