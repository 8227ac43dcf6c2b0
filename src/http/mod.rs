//! HTTP: requests in, answers out.
//!
//! | file | what it is |
//! |---|---|
//! | `server` | the threads, from start to end; their shared state is in `shared` |
//! | `workers` | requests are received, routed and answered |
//! | `body` | a request's body is read: 413, 411, chunks, slow clients |
//! | `routes` | the table of routes; the API token is in `api_token`, the check of browsers' pages in `origin` |
//! | `requests` | the requests of the four verbs, read from their JSON fields (`json`) |
//! | `lookups` | requests that only read |
//! | `outcomes` | an outcome becomes status, JSON, log line and counter |
//! | `response` | responses, and refusals without an answer about leases (400 to 503); their log lines are in `refusal_log` |
//! | `connection_care` | keeps connections moving while the workers are busy |

mod api_token;
mod body;
mod connection_care;
mod json;
mod lookups;
mod origin;
mod outcomes;
mod refusal_log;
mod requests;
mod response;
mod routes;
mod server;
mod shared;
mod workers;

pub use api_token::ApiToken;
pub use lookups::LIST_MAX;
pub use requests::{Parsed, WAIT_MAX_MS};
pub use response::Response;
pub use routes::{Request, Routed, Router};
pub use server::{Config, SELF_CHECK_TIMEOUT, Server};
pub use shared::Ending;
