//! Fault: `tiny_http` removes our `Connection` header. So a client is not told that its connection
//! closes, which happens after the answer to a request that offered an upgrade, and after some
//! refusals. A client with a pool of connections, such as the JDK's, then loses its next request
//! with the connection.
//!
//! So the header is sent within the value of another header, which `tiny_http` writes unchanged.

use tiny_http::Header;

use super::unread_body::is_upgrade;

/// What happens to a connection after an answer.
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

/// The header `Server`, followed by `Connection: close` if the connection closes.
pub fn server_header(server: &str, connection: Connection) -> Header {
    let value = match connection {
        Connection::Stays => server.to_owned(),
        Connection::Closes => format!("{server}\r\nConnection: close"),
    };
    Header::from_bytes("Server", value).expect("it is ASCII")
}
