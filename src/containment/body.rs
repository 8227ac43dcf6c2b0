//! Fault: when a request is dropped before its body was read, `tiny_http` reads the rest of the body into
//! a buffer of the declared size. It waits for a body that never comes, and a forged size (10^12) aborts
//! the process.
//!
//! Bodies are therefore read only if `tiny_http` has them already. Before any other request is dropped, its
//! socket is closed for reading, so that the rest is what has come so far. A request with a forged size is
//! never dropped: what it holds stays behind, a thread and two descriptors, and after
//! [`LEFT_BEHIND_MAX`] of them the process ends and is started again.
//!
//! Where the length is malformed, `tiny_http` has taken what follows for the next request already, and it
//! is answered as one. It comes from the same client, so nothing is gained by it; a proxy that many
//! clients share must not pass such lengths on (nginx does not).

use std::io::{self, Cursor, Read, Write};

use log::{debug, warn};
use rustix::net::Shutdown;
use tiny_http::Method;

use crate::metrics::METRICS;
use crate::net::shut_down;

/// Longest body of a request. Ids, tokens and numbers fit several times over, and `tiny_http` has read a
/// body of this size before a worker sees the request.
pub const BODY_MAX_BYTES: usize = 1024;

/// A refused body up to this size is skipped, and nothing stays behind.
const SKIP_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Requests that may stay behind before the process ends; each holds a thread and two descriptors, of
/// which the unit allows 8,192. Where there are fewer, these run out before, to the same effect.
const LEFT_BEHIND_MAX: i64 = 1_000;

/// Why a request's body was not read.
#[derive(Debug)]
pub enum Unreadable {
    LengthRequired,
    TooLarge,
    Invalid(String),
}

/// What may still come on the connection of a request whose body was not read.
#[derive(Clone, Copy, Debug)]
pub enum Rest {
    /// A body of a length that can be skipped, or nothing that counts as one.
    Short,
    /// Chunks, which say themselves where they end.
    Chunks,
    /// A body of a forged length.
    Forged,
}

/// Reads a request's body without ever waiting for the client.
///
/// # Errors
/// Why it was not read, and what may still come.
pub fn read(request: &mut tiny_http::Request) -> Result<Vec<u8>, (Unreadable, Rest)> {
    let invalid = |text: &str| Err((Unreadable::Invalid(text.to_owned()), Rest::Short));
    let length = declared_length(request)?;
    if is_forged(request) {
        return Err((Unreadable::TooLarge, Rest::Forged));
    }
    if length > BODY_MAX_BYTES {
        return Err((Unreadable::TooLarge, Rest::Short));
    }
    if expects_continue(request) {
        return invalid("Expect: send the body at once, without waiting for 100 Continue");
    }
    let is_upgrade = |value: &&str| value.to_ascii_lowercase().contains("upgrade");
    if headers(request, "Connection").iter().any(is_upgrade) {
        return invalid("Connection: there is nothing to upgrade to");
    }
    let mut body = Vec::with_capacity(length);
    match request.as_reader().read_to_end(&mut body) {
        Ok(_) => Ok(body),
        Err(error) => invalid(&format!("the body could not be read: {error}")),
    }
}

fn declared_length(request: &tiny_http::Request) -> Result<usize, (Unreadable, Rest)> {
    let lengths = headers(request, "Content-Length");
    match (&headers(request, "Transfer-Encoding")[..], &lengths[..]) {
        ([], []) if *request.method() == Method::Post => {
            Err((Unreadable::LengthRequired, Rest::Short))
        }
        ([], []) => Ok(0),
        ([], [digits])
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Ok(digits.parse().unwrap_or(usize::MAX))
        }
        ([], _) => {
            let text = "Content-Length must be one number";
            Err((Unreadable::Invalid(text.to_owned()), Rest::Short))
        }
        // Reading the chunks would ask for them first.
        _ if expects_continue(request) => Err((Unreadable::LengthRequired, Rest::Short)),
        _ => Err((Unreadable::LengthRequired, Rest::Chunks)),
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

/// Closes the connection of a request whose body was not read. Returns the request, to be answered as any
/// other; one with a forged length is answered here, with `response`, whose body is `line`.
///
/// # Errors
/// If too many requests stay behind: the process must end.
pub fn refuse(
    mut request: tiny_http::Request,
    rest: Rest,
    response: tiny_http::Response<Cursor<Vec<u8>>>,
    line: &str,
) -> Result<Option<tiny_http::Request>, String> {
    let peer = request.remote_addr().copied();
    shut_down(peer, Shutdown::Read);
    match rest {
        Rest::Short => {}
        Rest::Chunks => {
            // Chunks that have come already must not be taken for the next request.
            let limit = u64::try_from(SKIP_MAX_BYTES).unwrap_or(u64::MAX);
            let skipped = io::copy(&mut request.as_reader().take(limit), &mut io::sink());
            debug!("skipped a body: {skipped:?}");
        }
        Rest::Forged => {
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

/// Drops a request of a client that was cut off. Without an answer, which would wait until the
/// requests before it have theirs.
///
/// # Errors
/// If too many requests stay behind: the process must end.
pub fn discard(request: tiny_http::Request) -> Result<(), String> {
    if is_forged(&request) {
        return leave_behind(request);
    }
    let is_unread = request.body_length().is_some_and(|length| length > BODY_MAX_BYTES);
    if is_unread || expects_continue(&request) {
        // The drop waits for the rest of the body. A new connection may have the address of the
        // one that was cut off.
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
    Err("too many requests with forged lengths; a fresh start frees their connections".to_owned())
}
