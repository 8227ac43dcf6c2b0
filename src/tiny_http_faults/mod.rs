//! The faults of `tiny_http` 0.12, each with its remedy in its own file. `http/workers.rs`,
//! `http/body.rs`, `http/response.rs` and `http/connection_care.rs` call the remedies.
//!
//! | file | fault |
//! |---|---|
//! | `unread_body` | it reads the rest of a dropped request's body into a buffer of the declared size |
//! | `late_body` | a thread that reads a chunked or expected body waits for the client |
//! | `early_close` | it does not tell a client that it closes the connection |
//! | `answer_order` | the answer to a pipelined request blocks its writer until the earlier ones are written |
//! | `blocked_writer` | the same on a Unix socket, where nothing identifies the client of a request |
//! | `endless_head` | it keeps a request's head, and the requests that nobody has received yet, in memory without a limit; nothing cuts off a client of a Unix socket that does not read |
//! | `forgotten_connection` | in a burst, it accepts connections and then forgets them |
//! | `dead_acceptor` | its accepting thread ends at the first error |
//!
//! It also panics on some `TE` headers when it answers: `http/workers.rs` catches this, and
//! `unread_body` does where a panic would end the process.
//!
//! One fault is not contained: an HTTP/2 or HTTP/3 request leaves a thread and two descriptors
//! behind. When these run out, the process ends and is started again.

pub mod answer_order;
pub mod blocked_writer;
pub mod dead_acceptor;
pub mod early_close;
pub mod endless_head;
pub mod forgotten_connection;
pub mod late_body;
pub mod unread_body;
