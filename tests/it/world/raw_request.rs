//! Requests as bytes, for tests of requests that an HTTP library would not send.

use std::fmt::Display;

/// A GET on a connection that stays open.
pub const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

/// A header line that ends the connection after the answer.
pub const CLOSE: &str = "Connection: close\r\n";

/// What the JDK's HTTP client sends with every request.
pub const UPGRADE: &str = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n";

pub fn raw_get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

/// The head of a POST with this `Content-Length` and more header lines, for any body.
pub fn raw_post_head(path: &str, content_length: impl Display, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {content_length}\r\n{headers}\r\n")
}

/// A whole POST.
pub fn raw_post(path: &str, headers: &str, body: impl Display) -> String {
    let body = body.to_string();
    raw_post_head(path, body.len(), headers) + &body
}
