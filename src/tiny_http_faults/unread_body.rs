//! Fault: if a request is dropped before its body was read, `tiny_http` reads the rest of the body
//! into a buffer of the declared size. It waits for a body that never comes, and a forged size
//! (10^12) aborts the process.
//!
//! So a request whose body was not read is dropped only if the rest of the body is short, and in
//! its own thread (`late_body`), or if its connection is closed first. A request with a forged size
//! is never dropped: it leaves a thread and two descriptors behind. After [`LEFT_BEHIND_MAX`] such
//! requests, the process ends and is started again.
//!
//! Nor is a request on a Unix socket with an unread rest of a chunked body: `tiny_http` would parse
//! the rest as the next request, and nothing identifies the connection, so that it cannot be closed.

use std::io::{Cursor, Write};

use log::{debug, warn};
use rustix::net::Shutdown;
use tiny_http::{HTTPVersion, Method, StatusCode};

use crate::metrics::METRICS;
use crate::net::{ClientSocket, shut_down};

/// `tiny_http` has read a body of at most this length before it delivers the request, unless the
/// client waits for `100 Continue` or offers an upgrade.
pub const READ_IN_ADVANCE_MAX_BYTES: usize = 1024;

/// A refused body up to this size is skipped, which leaves nothing behind.
const SKIP_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A refused body up to this size is read, so that its client sees the refusal. Longer bodies are
/// not worth the work.
pub const DRAIN_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Requests that may stay behind before the process ends. Each holds a thread and two descriptors,
/// of which the unit allows 8,192. Under a lower limit, threads or descriptors run out first, and
/// the process ends as well.
const LEFT_BEHIND_MAX: i64 = 1_000;

/// What the client may still send on the connection of a request whose body was not read.
#[derive(Clone, Copy, Debug)]
pub enum Rest {
    /// Nothing that must be read.
    Nothing,
    /// A body of at most [`DRAIN_MAX_BYTES`]: `tiny_http` reads it when the request is dropped, and
    /// waits for the client.
    Declared,
    /// The rest of a chunked body, which `tiny_http` would parse as the next request.
    Chunked,
}

impl Rest {
    /// The rest of a body of this length, none of which was read.
    pub fn of(request: &tiny_http::Request, length: usize) -> Self {
        if length <= DRAIN_MAX_BYTES && !expects_continue(request) {
            Self::Declared
        } else {
            Self::Nothing
        }
    }

    /// The rest of a body that is not read to its end, if it is chunked.
    pub fn of_chunks(request: &tiny_http::Request) -> Self {
        // `tiny_http` reads no more requests after an offer of an upgrade.
        let is_chunked = !headers(request, "Transfer-Encoding").is_empty() && !is_upgrade(request);
        if is_chunked { Self::Chunked } else { Self::Nothing }
    }
}

/// The values of all headers with this name.
pub fn headers<'a>(request: &'a tiny_http::Request, name: &'static str) -> Vec<&'a str> {
    let headers = request.headers().iter().filter(|header| header.field.equiv(name));
    headers.map(|header| header.value.as_str()).collect()
}

/// Whether `tiny_http` has read the body, which has this length.
pub fn is_read_in_advance(request: &tiny_http::Request, length: usize) -> bool {
    length <= READ_IN_ADVANCE_MAX_BYTES && !expects_continue(request) && !is_upgrade(request)
}

fn is_forged(request: &tiny_http::Request) -> bool {
    request.body_length().is_some_and(|length| length > SKIP_MAX_BYTES)
}

fn expects_continue(request: &tiny_http::Request) -> bool {
    !headers(request, "Expect").is_empty()
}

/// Whether `tiny_http` treats the request as an upgrade, and returns the raw connection. It reads
/// only the first `Connection` header.
pub fn is_upgrade(request: &tiny_http::Request) -> bool {
    let connection = headers(request, "Connection");
    connection.first().is_some_and(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Prepares the refusal of a request whose body was not read, on this connection. Returns the
/// request, which the caller answers, before it closes the connection. A request that must not be
/// dropped is answered here.
///
/// # Errors
/// Fails if too many requests stay behind: the process must end.
pub fn refuse(
    request: tiny_http::Request,
    rest: Rest,
    response: tiny_http::Response<Cursor<Vec<u8>>>,
    socket: Option<&ClientSocket>,
) -> Result<Option<tiny_http::Request>, String> {
    if must_stay(&request, rest) {
        return answer_and_leave_behind(request, response).map(|()| None);
    }
    // If the socket were closed for reading and the client continued to send, the system would reset
    // the connection, and the client would lose the answer. So a short rest is read.
    let is_short = matches!(rest, Rest::Declared);
    if let (false, Some(1..), Some(socket)) = (is_short, request.body_length(), socket) {
        socket.shut_down(Shutdown::Read);
    }
    Ok(Some(request))
}

/// Whether a refused request must not be dropped. Nothing follows it on its connection.
pub fn must_stay(request: &tiny_http::Request, rest: Rest) -> bool {
    is_forged(request) || request.remote_addr().is_none() && matches!(rest, Rest::Chunked)
}

fn answer_and_leave_behind(
    request: tiny_http::Request,
    response: tiny_http::Response<Cursor<Vec<u8>>>,
) -> Result<(), String> {
    let peer = request.remote_addr().copied();
    let is_head = *request.method() == Method::Head;
    shut_down(peer, Shutdown::Read);
    // Only an upgrade returns the connection without reading the body. Its own answer has no length,
    // and panics on some `TE` headers, unless its status is 100.
    let mut stream = request.upgrade("none", tiny_http::Response::new_empty(StatusCode(100)));
    let written = response
        .raw_print(&mut stream, HTTPVersion(1, 1), &[], is_head, None)
        .and_then(|()| stream.flush());
    debug!("refused a body that cannot be read: {written:?}");
    let left = leave_behind(stream);
    shut_down(peer, Shutdown::Write);
    left
}

/// Drops a request of a client that was cut off. Sends no answer, which would wait for the answers
/// to the requests before.
///
/// # Errors
/// Fails if too many requests stay behind: the process must end.
pub fn discard(request: tiny_http::Request) -> Result<(), String> {
    if is_forged(&request) {
        return leave_behind(request);
    }
    let is_unread = request.body_length().is_some_and(|length| length > READ_IN_ADVANCE_MAX_BYTES);
    if is_unread || expects_continue(&request) {
        // The drop waits for the rest of the body. The request may belong to a new connection with
        // the address of the one that was cut off, so shut the new one down too.
        shut_down(request.remote_addr().copied(), Shutdown::Both);
    }
    drop(request.into_writer());
    Ok(())
}

fn leave_behind<T>(what: T) -> Result<(), String> {
    std::mem::forget(what);
    METRICS.left_behind.inc();
    let left_behind = METRICS.left_behind.get();
    warn!("refused a body that cannot be read; {left_behind} connections left behind");
    if left_behind < LEFT_BEHIND_MAX {
        return Ok(());
    }
    Err("too many requests with forged lengths or broken chunks; a restart frees their connections"
        .to_owned())
}
