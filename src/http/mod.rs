//! HTTP: requests in, answers out.
//!
//! | file | what it is |
//! |---|---|
//! | `server` | the threads, from the start to the end |
//! | `shared` | what the threads share |
//! | `workers` | requests are received, routed and answered |
//! | `routes` | the table of routes, the API token, methods, origins |
//! | `requests`, `fields` | the requests of the four verbs, from JSON |
//! | `lookups` | requests that only read |
//! | `answers` | an outcome becomes status, JSON, log line and counter |
//! | `response` | responses and refusals |
//! | `guard` | keeps connections moving while the workers are busy |

mod answers;
mod fields;
mod guard;
mod lookups;
mod requests;
mod response;
mod routes;
mod server;
mod shared;
mod workers;

pub use lookups::LIST_MAX;
pub use requests::{Parsed, WAIT_MAX_MS};
pub use response::Response;
pub use routes::{Request, Routed, Router};
pub use server::Server;
pub use shared::Ending;
