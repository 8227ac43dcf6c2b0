//! Fault: `tiny_http` closes a connection after the answer to a request that offered an upgrade, as after any
//! refusal of ours, and does not say so: it removes our `Connection` header. A client with a pool of
//! connections, such as the JDK's, then loses its next request with the connection.
//!
//! So the header travels in the value of another one, which `tiny_http` writes as it is.

use tiny_http::Header;

use super::body::is_upgrade;

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, PartialEq)]
pub enum Connection {
    Stays,
    Closes,
}

impl Connection {
    /// What `tiny_http` does after the answer to this request.
    pub fn after(request: &tiny_http::Request) -> Self {
        if is_upgrade(request) { Self::Closes } else { Self::Stays }
    }
}

/// The header `Server`, and `Connection: close` with it if the connection closes.
pub fn server_header(server: &str, connection: Connection) -> Header {
    let value = match connection {
        Connection::Stays => server.to_owned(),
        Connection::Closes => format!("{server}\r\nConnection: close"),
    };
    Header::from_bytes("Server", value).expect("it is ASCII")
}
