//! Fault: if a request is dropped before its body was read, `tiny_http` reads the rest of the body
//! into a buffer of the declared size. It waits for a body that never comes, and a forged size
//! (10^12) aborts the process.
//!
//! So a body is read here only if `tiny_http` has already read it. `late_body` reads all other
//! bodies, also of refused requests. A request with a forged size is never dropped: it leaves a
//! thread and two descriptors behind. After [`LEFT_BEHIND_MAX`] such requests, the process ends and
//! is started again.
//!
//! If the length is malformed, `tiny_http` has already parsed the body as the next request, which
//! is answered. The body comes from the same client, so an attacker gains nothing. A proxy that
//! many clients share must not forward such lengths (nginx does not).

use std::io::{Cursor, Write};

use log::{debug, warn};
use rustix::net::Shutdown;
use tiny_http::Method;

use crate::metrics::METRICS;
use crate::net::shut_down;

/// Longest body of a request. It has room for all fields several times over, and `tiny_http` has
/// read a body of this size before a worker sees the request.
pub const BODY_MAX_BYTES: usize = 1024;

/// A refused body up to this size is skipped, which leaves nothing behind.
const SKIP_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A refused body up to this size is read, so that its client sees the refusal. Longer bodies are
/// not worth the work.
pub(super) const DRAIN_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Requests that may stay behind before the process ends. Each holds a thread and two descriptors,
/// of which the unit allows 8,192. Under a lower limit, threads or descriptors run out first, and
/// the process ends as well.
const LEFT_BEHIND_MAX: i64 = 1_000;

/// Why a request's body was not read.
#[derive(Debug)]
pub enum Unreadable {
    LengthRequired,
    TooLarge,
    Invalid(String),
    /// The service stops, and reads no more.
    Stopping,
}

/// What the client may still send on the connection of a request whose body was not read.
#[derive(Clone, Copy, Debug)]
pub enum Rest {
    /// Nothing that must be read.
    Nothing,
    /// A body of at most [`DRAIN_MAX_BYTES`]: `tiny_http` reads it when the request is dropped, and
    /// waits for the client.
    Declared,
    /// A body of a forged length.
    Forged,
}

/// The body of a request, if it can be read without waiting for the client.
#[derive(Debug)]
pub enum Body {
    Read(Vec<u8>),
    /// [`super::late_body`] must read it.
    Late,
}

/// Reads a request's body if `tiny_http` has read it already.
///
/// # Errors
/// Returns why the request is refused, and what the client may still send.
pub fn read(request: &mut tiny_http::Request) -> Result<Body, (Unreadable, Rest)> {
    let length = declared_length(request)?;
    if is_forged(request) {
        return Err((Unreadable::TooLarge, Rest::Forged));
    }
    match length {
        Some(length) if length > BODY_MAX_BYTES => {
            let is_read = length <= DRAIN_MAX_BYTES && !expects_continue(request);
            Err((Unreadable::TooLarge, if is_read { Rest::Declared } else { Rest::Nothing }))
        }
        Some(0) => Ok(Body::Read(Vec::new())),
        Some(_) if !expects_continue(request) && !is_upgrade(request) => {
            let mut body = Vec::new();
            match request.as_reader().read_to_end(&mut body) {
                Ok(_) => Ok(Body::Read(body)),
                Err(error) => {
                    let text = format!("the body could not be read: {error}");
                    Err((Unreadable::Invalid(text), Rest::Nothing))
                }
            }
        }
        Some(_) | None => Ok(Body::Late),
    }
}

/// The length of the body; `None` if it is chunked.
fn declared_length(request: &tiny_http::Request) -> Result<Option<usize>, (Unreadable, Rest)> {
    let invalid = |text: &str| Err((Unreadable::Invalid(text.to_owned()), Rest::Nothing));
    let lengths = headers(request, "Content-Length");
    match (&headers(request, "Transfer-Encoding")[..], &lengths[..]) {
        ([], []) if *request.method() == Method::Post => {
            Err((Unreadable::LengthRequired, Rest::Nothing))
        }
        ([], []) => Ok(Some(0)),
        ([], [digits])
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Ok(Some(digits.parse().unwrap_or(usize::MAX)))
        }
        ([], _) => invalid("Content-Length must be one number"),
        // `tiny_http` reads chunks for every coding.
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(None),
        _ => invalid("Transfer-Encoding must be chunked, without a Content-Length"),
    }
}

fn headers<'a>(request: &'a tiny_http::Request, name: &'static str) -> Vec<&'a str> {
    let headers = request.headers().iter().filter(|header| header.field.equiv(name));
    headers.map(|header| header.value.as_str()).collect()
}

fn is_forged(request: &tiny_http::Request) -> bool {
    request.body_length().is_some_and(|length| length > SKIP_MAX_BYTES)
}

fn expects_continue(request: &tiny_http::Request) -> bool {
    !headers(request, "Expect").is_empty()
}

pub(super) fn is_chunked(request: &tiny_http::Request) -> bool {
    !headers(request, "Transfer-Encoding").is_empty()
}

/// Whether `tiny_http` treats the request as an upgrade. It reads only the first `Connection`
/// header.
pub(super) fn is_upgrade(request: &tiny_http::Request) -> bool {
    let connection = headers(request, "Connection");
    connection.first().is_some_and(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Closes the connection of a request whose body was not read. Returns the request, which the
/// caller answers. A request with a forged length is answered here, with `response`, whose body is
/// `line`.
///
/// # Errors
/// Fails if too many requests stay behind: the process must end.
pub fn refuse(
    request: tiny_http::Request,
    rest: Rest,
    response: tiny_http::Response<Cursor<Vec<u8>>>,
    line: &str,
) -> Result<Option<tiny_http::Request>, String> {
    let peer = request.remote_addr().copied();
    match rest {
        // Otherwise `tiny_http` would parse the rest of the body as the next request.
        Rest::Nothing => shut_down(peer, Shutdown::Read),
        // If the socket were closed for reading and the client continued to send, the system would
        // reset the connection, and the client would lose the answer.
        Rest::Declared => {}
        Rest::Forged => {
            shut_down(peer, Shutdown::Read);
            let mut stream = request.upgrade("none", response);
            let written = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
            debug!("refused a forged length: {written:?}");
            let left = leave_behind(stream);
            shut_down(peer, Shutdown::Write);
            return left.map(|()| None);
        }
    }
    Ok(Some(request))
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
    let is_unread = request.body_length().is_some_and(|length| length > BODY_MAX_BYTES);
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
    warn!("refused a forged length; {left_behind} connections left behind");
    if left_behind < LEFT_BEHIND_MAX {
        return Ok(());
    }
    Err("too many requests with forged lengths; a restart frees their connections".to_owned())
}
