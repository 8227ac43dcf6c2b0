//! What `tiny_http` 0.12 does badly, each fault contained in a file of its own. The rest of the program is
//! written as if `tiny_http` had none of them.
//!
//! | file | fault |
//! |---|---|
//! | `body` | it reads the rest of a dropped request's body into a buffer of the declared size |
//! | `late_body` | it makes whoever reads a chunked or expected body wait for the client |
//! | `early_close` | it does not tell a client that it closes the connection |
//! | `answer_order` | the answer to a pipelined request blocks its writer until the ones before are written |
//! | `blocked_writer` | the same on a Unix socket, where nothing tells whose a request is |
//! | `endless_head` | it keeps a request's head in memory, however long, and nothing cuts off a client of a Unix socket that does not read |
//! | `forgotten_connection` | in a burst, it accepts connections and then forgets them |
//! | `dead_acceptor` | its accepting thread ends for good at the first error |
//!
//! One fault is not contained: a request of HTTP/2 or 3 leaves a thread and two descriptors behind. When
//! those run out, the process ends and is started again.

pub mod answer_order;
pub mod blocked_writer;
pub mod body;
pub mod dead_acceptor;
pub mod early_close;
pub mod endless_head;
pub mod forgotten_connection;
pub mod late_body;
