//! One worker at a time per chat conversation.
//!
//! session-lock gives exactly one worker the right to a conversation, a *lease*, and keeps it in
//! the bot's own MySQL or MariaDB table.
//!
//! # The map
//!
//! Each module uses only those below it:
//!
//! | module | what is in it |
//! |---|---|
//! | [`cli`] | one file per command, settings and their defaults, exit statuses, the HTTP client of `list`, `release`, `run` and `health` |
//! | [`http`] | the server's threads, the table of routes, requests in, responses out |
//! | [`background`] | one table of background jobs: end waits, watch rows, sweep, check health |
//! | [`service`] | gives each operation its turn, and answers it |
//! | [`queue`] | who waits for which session |
//! | [`store`] | a batch of operations in, a batch of answers out: packets, retries, list, watch, sweep |
//! | [`doctor`] | `check`: facts are read once, and each finding is a small function of them |
//! | [`page_history`] | the last ten minutes, for the page |
//! | [`lease`] | the terms and the rules, one file per verb: what the rows that were read mean |
//! | [`db`] | pool, connection, statements, kinds of errors, health, `KILL` |
//! | [`tiny_http_faults`] | the faults of `tiny_http`, each in its own file |
//! | [`net`] | the listener and the connections that it accepted |
//! | [`metrics`], [`process_stats`], [`logging`], [`systemd`] | shared by the other modules |
//!
//! # Where to look
//!
//! | what | where |
//! |---|---|
//! | what a verb answers | its file in `lease/`, its statement in `sql/lease/` or `sql/message/` |
//! | what is written: the expiry, the fencing token, the record of a message | `sql/lease/acquire.sql`, `sql/message/record_on_*.sql` |
//! | an answer's status, JSON, log line and counter | `http/outcomes.rs` |
//! | 400, 401, 404, 405, 411, 413, 500, 503 and `Retry-After` of a 503 | `http/response.rs` |
//! | the limits of fields | `http/requests.rs` (`wait_ms`), `lease/ttl.rs`, `lease/session.rs`, `lease/message.rs` |
//! | the limit of a body (413), chunks, slow clients | `http/body.rs` |
//! | the start, while the database does not answer | `open` in `background.rs` |
//! | which acquire is next, and what follows a turn | `queue/order.rs`, `queue/wake.rs` |
//! | rows that crashed holders left behind | `store/sweep.rs`, from `background.rs` each minute |
//! | unknown and wrong fields | `http/json.rs` |
//! | how many operations share a transaction | `store/batch.rs` |
//! | a deadlock, a locked row, a lost connection | `store/retry.rs` |
//! | error numbers of the database | `db/error.rs`; remedies for refused logins in `db/refusal.rs` |
//! | a read-only server | `sql/connection/takes_writes.sql`, `db/connection.rs` |
//! | `KILL` | `db/kill.rs`, from `db/pool.rs` |
//! | SIGTERM and Ctrl-C | `cli/serve.rs`; the steps of the shutdown in `http/server.rs` |
//! | settings and their defaults, exit statuses | `cli/settings.rs`, `cli/exit_status.rs` |
//! | metrics | `metrics.rs` |
//!
//! The statements are in the folder `sql/`, one per file: they are the protocol's specification.
//! The tests in `tests/it/` are in folders of the same names.
//!
//! # The life of a request
//!
//! 1. A worker receives the request from `tiny_http`, together with all others that have arrived
//!    (`http/workers.rs`). If its client has an unanswered request, that one is answered first
//!    (`tiny_http_faults/answer_order.rs`). The worker reads the body if it has arrived
//!    (`http/body.rs`).
//! 2. The table of routes names the function that reads the request's fields (`http/routes.rs`,
//!    `http/requests.rs`). The fields become an operation, which joins its session's queue
//!    (`service/mod.rs`, `queue/mod.rs`).
//! 3. The worker takes the turns that are ready, at most one per session, and runs them as one
//!    batch (`store/batch.rs`). An attempt is the state of one operation, and knows the packet that it
//!    needs next (`store/attempt.rs`). Each packet that writes is one transaction
//!    (`store/packet.rs`). An acquire or a release without a message, alone in its batch, is one
//!    statement, and its count is the answer. Other packets read the rows back in the same
//!    transaction.
//! 4. The rows of the reply are assigned to their operations (`store/reply.rs`), and the file of
//!    the verb decides what they mean (`lease/acquire.rs`, `renew.rs`, `commit.rs`, `release.rs`).
//! 5. The queue gets the outcome (`service/turns.rs`). An acquire that may wait, and found the
//!    session held, goes back to its place. It gets another turn after a release on this server
//!    (`queue/wake.rs`), after the expiry of the lease that was read (the job `timer` in
//!    `background.rs`), or after a change of the row by somebody else (the job `watcher`). When its
//!    `wait_ms` is over, the answer is `held`.
//! 6. The outcome becomes status, JSON, log line and counter (`http/outcomes.rs`), and the answer
//!    is sent.

mod background;
mod cli;
mod db;
mod doctor;
mod http;
mod lease;
mod logging;
mod metrics;
mod net;
mod page_history;
mod process_stats;
mod queue;
mod service;
mod store;
mod systemd;
mod tiny_http_faults;

pub use cli::main;

/// The items that the tests and the benchmarks use; nothing else is public.
pub mod testing {
    pub use crate::cli::private_database::{DATABASE, PrivateDatabase};
    pub use crate::http::{Parsed, Request, Response, Routed, Router, WAIT_MAX_MS};
    pub use crate::lease::{
        Acquire, FencingToken, Id, OwnerToken, Release, STORED_CHARS, Session, StoredLease,
        TTL_MAX_MS, TTL_MIN_MS, TokenOrigin, Ttl,
    };
    pub use crate::service::Service;
    pub use crate::store::{FirstPacket, Locks, Opened, Operation, Store};

    // For the model, which has its own table: an operation's decisions, and its packets.
    pub use crate::lease::{
        Acquired, Commit, Committed, Force, Forced, Holder, How, Message, MessageId, Released,
        Renew, Renewed, Row, Snapshot, StoredRecord,
    };
    pub use crate::store::{Answer, Attempt, Sharing, Statements, StoreError, is_abandoned};

    /// The statements for the lock table as `sql/schema/lock_table.sql` creates it.
    pub fn statements(table: &str) -> Statements {
        let names = [table, "id_sessionX", "uniq_session", "utf8mb4_bin", "utf8mb4_bin"];
        let [name, key, session_key, device_collation, prospect_collation] =
            names.map(str::to_owned);
        let table = crate::db::Table {
            name,
            key,
            session_key,
            max_key: u64::from(i32::MAX.cast_unsigned()),
            next_id: 1,
            has_triggers: false,
            device_collation,
            prospect_collation,
        };
        Statements::new(&table, crate::store::Spellings::default(), false)
    }
}
