//! Responses, and refusals of requests that get no answer about leases.

use std::io::Cursor;

use serde_json::{Value, json};
use tiny_http::Header;

use super::body::{BODY_MAX_BYTES, Unreadable};
use super::json::Invalid;
use crate::lease::{OwnerToken, Record};
use crate::store::StoreError;
use crate::tiny_http_faults::early_close::{Connection, server_header};

pub const JSON: &str = "application/json";

/// The content type of the operator's page.
pub const HTML: &str = "text/html; charset=utf-8";

/// `Retry-After` while the database is not available: most failures last a second or two.
const RETRY_AFTER_UNAVAILABLE_S: u64 = 1;

/// The page loads nothing else, and no other page may frame it.
const PAGE_HEADERS: [(&str, &str); 2] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
];

/// A response, mostly JSON, with the few headers that depend on the answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
    pub content_type: &'static str,
    pub retry_after_s: Option<u64>,
    /// Why a request is refused, for the log: 503, and 4xx except 409.
    pub refused: Option<String>,
    pub allow: Option<&'static str>,
}

impl Response {
    pub fn new(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string(),
            content_type: JSON,
            retry_after_s: None,
            refused: None,
            allow: None,
        }
    }

    /// A 200 with this text.
    pub fn text(body: impl Into<String>, content_type: &'static str) -> Self {
        Self { body: body.into(), content_type, ..Self::new(200, &Value::Null) }
    }

    /// The answer to OPTIONS.
    pub fn options(methods: &'static str) -> Self {
        Self { status: 204, allow: Some(methods), ..Self::text("", JSON) }
    }

    /// A 409 because the message is answered, with the result of its commit, byte for byte.
    pub fn duplicate(body: &Value, record: &Record) -> Self {
        let mut response = Self::new(409, body);
        let result = record.result.as_deref().unwrap_or("null");
        let fields = response.body.trim_end_matches('}');
        response.body = format!("{fields},\"result\":{result}}}");
        response
    }

    /// The body as it is sent.
    pub fn line(&self) -> String {
        // A 204 has no body.
        if self.body.is_empty() { String::new() } else { format!("{}\n", self.body.trim_end()) }
    }

    /// The response as `tiny_http` sends it; `connection` is what happens to the connection
    /// afterwards.
    pub fn to_http(&self, connection: Connection) -> tiny_http::Response<Cursor<Vec<u8>>> {
        let mut headers = vec![("Content-Type", self.content_type)];
        let retry_after = self.retry_after_s.map(|seconds| seconds.to_string());
        headers.extend(retry_after.as_deref().map(|seconds| ("Retry-After", seconds)));
        headers.extend(self.allow.map(|methods| ("Allow", methods)));
        if self.content_type == HTML {
            headers.extend(PAGE_HEADERS);
        }
        if self.status == 401 {
            headers.push(("WWW-Authenticate", "Bearer"));
        }
        let response = tiny_http::Response::from_string(self.line())
            .with_status_code(self.status)
            .with_header(server_header("session-lock", connection));
        headers.into_iter().fold(response, |response, header| {
            let (name, value) = header;
            response.with_header(Header::from_bytes(name, value).expect("our headers are ASCII"))
        })
    }
}

/// A request that gets no answer about leases.
#[derive(Debug)]
pub enum Refusal {
    /// 400, with what is wrong.
    InvalidRequest(String),
    /// 401: the API token is missing or wrong.
    Unauthorized,
    /// 404: the path does not exist.
    NotFound,
    /// 405: the path takes only these methods.
    MethodNotAllowed(&'static str),
    /// 411: the length is missing.
    LengthRequired,
    /// 413: the body exceeds [`BODY_MAX_BYTES`].
    TooLarge,
    /// 500: a bug in this program.
    Internal,
    /// 503: the database does not answer, or a worker or the body came too late. If the requester's
    /// lease may have been written, the response has its owner token, with which the requester can
    /// repeat the request.
    Unavailable(String, Option<OwnerToken>),
    /// 503: the service stops.
    Stopping,
}

impl Refusal {
    /// Status, code and message.
    fn describe(&self) -> (u16, &'static str, String) {
        let (status, code, message) = match self {
            Self::InvalidRequest(message) => (400, "invalid_request", message.as_str()),
            Self::Unauthorized => (
                401,
                "unauthorized",
                "send the header Authorization: Bearer TOKEN, with the server's API token",
            ),
            Self::NotFound => {
                (404, "not_found", "there is no such path; the README has a table of the paths")
            }
            Self::MethodNotAllowed(methods) if methods.starts_with("POST") => {
                (405, "method_not_allowed", "this path takes POST")
            }
            Self::MethodNotAllowed(_) => (405, "method_not_allowed", "this path takes GET"),
            Self::LengthRequired => {
                (411, "length_required", "send a body, with a Content-Length or chunked")
            }
            Self::TooLarge => {
                let message = format!("the body may have at most {BODY_MAX_BYTES} bytes");
                return (413, "too_large", message);
            }
            Self::Internal => {
                (500, "internal", "a bug in session-lock; its log has a line about it")
            }
            Self::Unavailable(message, _) => (503, "unavailable", message.as_str()),
            Self::Stopping => {
                (503, "unavailable", "the server is stopping; repeat the same request")
            }
        };
        (status, code, message.to_owned())
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let (status, code, message) = refusal.describe();
        let mut body = json!({"error": {"code": code, "message": message}});
        if let Refusal::Unavailable(_, Some(token)) = &refusal {
            body["owner_token"] = json!(token.secret());
        }
        let mut response = Self::new(status, &body);
        let is_logged = !matches!(refusal, Refusal::Internal | Refusal::Stopping);
        response.refused = is_logged.then_some(message);
        match refusal {
            Refusal::MethodNotAllowed(allow) => response.allow = Some(allow),
            Refusal::Unavailable(..) | Refusal::Stopping => {
                response.retry_after_s = Some(RETRY_AFTER_UNAVAILABLE_S);
            }
            _ => {}
        }
        response
    }
}

impl From<Invalid> for Refusal {
    fn from(Invalid(wrong): Invalid) -> Self {
        Self::InvalidRequest(wrong)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Internal => Self::Internal,
            StoreError::NotStorable(why) => Self::InvalidRequest(why),
            StoreError::OutcomeUnknown(_, ref owner_token) => {
                Self::Unavailable(error.to_string(), owner_token.clone())
            }
            error => Self::Unavailable(error.to_string(), None),
        }
    }
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::LengthRequired => Self::LengthRequired,
            Unreadable::TooLarge => Self::TooLarge,
            Unreadable::Invalid(wrong) => Self::InvalidRequest(wrong),
            Unreadable::Late => {
                let text = "the body is not complete: it came too late, or this server was paused; nothing was written, try again";
                Self::Unavailable(text.to_owned(), None)
            }
            Unreadable::Stopping => Self::Stopping,
        }
    }
}
