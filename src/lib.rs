//! One worker at a time per chat conversation.
//!
//! session-lock gives exactly one worker the right to a conversation, a *lease*, and keeps it in
//! the bot's own MySQL or MariaDB table. Each module uses only those above it:
//!
//! | module | what it is |
//! |---|---|
//! | `lease` | the words, the rules of each verb, and the 62 stored characters |
//! | `metrics` | what is counted, for Prometheus |
//! | `journal` | log lines, of a batch together |
//! | `config` | settings and their defaults |
//! | `sockets` | sockets by their numbers: all unsafe code |
//! | `outage` | whether the database answers, and what waits until it does |
//! | `database` | the way to the database: pool, statements, packets, errors |
//! | `table` | what the lock table must be like, and what is wrong with it |
//! | `store` | operations in, answers out: one packet of statements, and the rows that it reads back |
//! | `waiters` | who stands in line for which session |
//! | `fields` | the fields of a request |
//! | `api` | HTTP requests and answers as JSON |
//! | `unix_transport` | its way to a Unix socket |
//! | `client` | the other end of that interface |
//! | `run` | a command under a lease |
//! | `door` | the socket that is listened on, and those of its connections |
//! | `systemd` | what systemd is told |
//! | `upkeep` | what goes on beside the requests: opening, mending, waiting, sweeping |
//! | `server` | HTTP on that socket: `tiny_http`, worker threads, limits, stopping |
//! | `dev` | a private database for trying it out |
//! | `cli` | the commands |
//!
//! The life of a request: a worker of `server` takes it from `tiny_http`, with all others that
//! wait, and hands their bytes to `api`, which makes an `Operation` of each. An operation takes its turn
//! in its session's line (`waiters`); those that have theirs at one time run on the `store` together, as
//! one transaction (acquires apart from the rest, while no worker waits for requests). What the rows that
//! came back mean is decided in `lease`, in the file of the verb, and each answer goes back through the
//! request that asked. The statements are in the folder `sql/`, one a file: they are the protocol's
//! specification.

mod background;
mod cli;
mod config;
mod db;
mod doctor;
mod http;
mod lease;
mod logging;
mod metrics;
mod queue;
mod sockets;
mod store;
mod systemd;

pub use cli::main;

/// What the tests and the benchmarks use of the library; nothing else is public.
pub mod testing {
    pub use crate::cli::private_database::{DATABASE, PrivateDatabase};
    pub use crate::http::api::{Api, Asked, Request, Response, WAIT_MAX_MS};
    pub use crate::lease::{
        Acquire, FencingToken, Id, OwnerToken, Release, STORED_CHARS, Session, StoredLease,
        TTL_MAX_MS, TTL_MIN_MS, TokenOrigin, Ttl,
    };
    pub use crate::store::{FirstPacket, Opened, Operation, Store};
}
