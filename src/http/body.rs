//! Reads a request's body: what a length may be, and how long a body.
//!
//! If the length or a chunk is malformed, `tiny_http` parses the rest of the body as the next
//! request. On a TCP connection, nothing that follows a refused body is executed (`answer_order`),
//! and after a malformed chunk a Unix socket is not read any more (`unread_body`). After a malformed
//! length it is: a proxy on this machine must not forward such lengths (nginx does not).

use std::io::{self, Read};
use std::time::Instant;

use chunked_transfer::Decoder;
use tiny_http::Method;

use crate::tiny_http_faults::unread_body::{
    DRAIN_MAX_BYTES, READ_IN_ADVANCE_MAX_BYTES, Rest, headers, is_read_in_advance, is_upgrade,
};

/// Longest body of a request; a longer one is a 413. Real ids need a tenth of it; the longest ids
/// together with the longest result do not fit. A worker need not wait for a body of this size.
pub const BODY_MAX_BYTES: usize = 1024;

const _: () = assert!(BODY_MAX_BYTES <= READ_IN_ADVANCE_MAX_BYTES);

/// Bytes of a late body that are read at a time.
const BUFFER_BYTES: usize = 8 * 1024;

/// Why a request's body was not read.
#[derive(Debug)]
pub enum Unreadable {
    LengthRequired,
    TooLarge,
    Invalid(String),
    /// The body came too late, or the process was paused while it came.
    Late,
    /// The service stops, and reads no more.
    Stopping,
}

/// The body of a request, if it can be read without waiting for the client.
#[derive(Debug)]
pub enum Body {
    Read(Vec<u8>),
    /// [`read_late`] must read it.
    Late,
}

/// Reads a request's body if `tiny_http` has read it already.
///
/// # Errors
/// Returns why the request is refused, and what the client may still send.
pub fn read(request: &mut tiny_http::Request) -> Result<Body, (Unreadable, Rest)> {
    match declared_length(request)? {
        Some(length) if length > BODY_MAX_BYTES => {
            Err((Unreadable::TooLarge, Rest::of(request, length)))
        }
        Some(0) => Ok(Body::Read(Vec::new())),
        Some(length) if is_read_in_advance(request, length) => {
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
    let invalid =
        |text: &str| Err((Unreadable::Invalid(text.to_owned()), Rest::of_chunks(request)));
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

/// Reads the body of a request that `tiny_http` has not read. Waits for the client, on a TCP
/// connection until this time at the latest.
///
/// # Errors
/// Fails if the body is malformed, too large or not complete in time.
pub fn read_late(
    request: &mut tiny_http::Request,
    until: Instant,
) -> Result<Vec<u8>, (Unreadable, Rest)> {
    // `None` if the body is chunked.
    let (length, is_upgrade) = (request.body_length(), is_upgrade(request));
    let rest = Rest::of_chunks(request);
    // Sends 100 Continue if the client waits for it.
    let reader = request.as_reader();
    // After an offer of an upgrade, `tiny_http` returns the raw connection.
    let mut reader: Box<dyn Read> = match length {
        None if is_upgrade => Box::new(Decoder::new(reader)),
        None => Box::new(reader),
        Some(length) => Box::new(reader.take(u64::try_from(length).unwrap_or(u64::MAX))),
    };
    let unreadable = |error: &io::Error| {
        let why = match error.kind() {
            // The read is not repeated: the decoder has lost the size of the chunk.
            io::ErrorKind::Interrupted => Unreadable::Late,
            _ if Instant::now() > until => Unreadable::Late,
            _ => Unreadable::Invalid(format!(
                "the body is not complete or its chunks are wrong: {error}"
            )),
        };
        (why, rest)
    };
    let mut body = Vec::new();
    let mut discarded = 0;
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let read = reader.read(&mut buffer).map_err(|error| unreadable(&error))?;
        // After this time the connection is shut down for reading, which the decoder of chunks may
        // take for the end of the body.
        if Instant::now() > until {
            return Err((Unreadable::Late, rest));
        }
        // A client that sends its whole body before it reads sees the refusal only if the whole
        // body is read.
        if discarded > 0 || body.len() + read > BODY_MAX_BYTES {
            discarded += read;
        } else {
            body.extend_from_slice(&buffer[..read]);
        }
        if discarded > DRAIN_MAX_BYTES {
            return Err((Unreadable::TooLarge, rest));
        }
        if read == 0 || length == Some(body.len()) {
            break;
        }
    }
    match length {
        _ if discarded > 0 => Err((Unreadable::TooLarge, Rest::Nothing)),
        Some(length) if body.len() < length => {
            Err(unreadable(&io::ErrorKind::UnexpectedEof.into()))
        }
        _ => Ok(body),
    }
}
