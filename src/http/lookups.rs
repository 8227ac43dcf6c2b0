//! Requests that only read: lists, one session, health, metrics, the page.

use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use serde_json::json;

use super::json::Invalid;
use super::outcomes::describe;
use super::response::{HTML, JSON, Refusal, Response};
use crate::lease::{Id, Session};
use crate::metrics::METRICS;
use crate::page_history::HISTORY;
use crate::service::Service;

/// The description of the API, for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// The operator's page: one document, so that it loads nothing else.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("page.html").replacen("/* page.css */", include_str!("page.css"), 1).replacen(
        "/* page.js */",
        include_str!("page.js"),
        1,
    )
});

/// Prometheus' text format.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Default number of leases on a page of the list: as many as a person reads.
const LIST_DEFAULT: u64 = 100;

/// The maximum number of leases on a page: they take the database some milliseconds.
pub const LIST_MAX: u64 = 1_000;

/// A device's and a prospect's id in a path, percent-encoded.
pub type PathIds<'a> = (&'a str, &'a str);

/// A request that only reads.
pub struct Lookup<'a> {
    /// The session that the path names.
    pub session: Option<Session>,
    pub query: &'a str,
}

/// The session with these ids.
pub fn session((device, prospect): PathIds) -> Result<Session, Refusal> {
    let id = |name, encoded: &str| {
        Id::as_stored(&decoded(name, encoded)?).map_err(|wrong| Invalid::field(name, wrong))
    };
    Ok(Session { id_device: id("id_device", device)?, id_prospect: id("id_prospect", prospect)? })
}

fn decoded(name: &str, encoded: &str) -> Result<String, Invalid> {
    match percent_decode_str(encoded).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Invalid::field(name, "is not UTF-8 once percent-decoded")),
    }
}

pub fn lock(service: &Service, lookup: &Lookup) -> Result<Response, Refusal> {
    let session = lookup.session.as_ref().ok_or(Refusal::NotFound)?;
    let (holding, waiters) = service.read(session)?;
    let Some(holding) = holding else {
        return Ok(Response::new(200, &json!({"held": false})));
    };
    let mut body = json!({"held": true});
    describe(&mut body, session, &holding, waiters);
    Ok(Response::new(200, &body))
}

pub fn locks(service: &Service, lookup: &Lookup) -> Result<Response, Refusal> {
    let (mut device, mut limit, mut after) = (None, LIST_DEFAULT, i64::MIN);
    for pair in lookup.query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(name, value)?;
        let wrong = |wrong: &str| Invalid::field(name, wrong);
        match name {
            "id_device" => device = Some(Id::as_stored(&value).map_err(wrong)?),
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=LIST_MAX).contains(limit));
                limit = number.ok_or_else(|| wrong(&format!("must be 1-{LIST_MAX}")))?;
            }
            "after" => {
                let key = value.parse();
                after =
                    key.map_err(|_| wrong("must be the value of \"next\" of the previous page"))?;
            }
            _ => return Err(wrong("is not a parameter of this request").into()),
        }
    }
    let page = service.store().list(device.as_ref(), after, limit)?;
    let locks = page.holdings.iter().map(|(session, holding)| {
        let mut lock = json!({});
        describe(&mut lock, session, holding, service.waiters(session));
        lock
    });
    let mut body = json!({"locks": locks.collect::<Vec<_>>()});
    if let Some(next) = page.next {
        body["next"] = json!(next.to_string());
    }
    Ok(Response::new(200, &body))
}

pub fn healthz(_: &Service) -> Response {
    Response::new(200, &json!({"status": "ok"}))
}

pub fn readyz(service: &Service, _: &Lookup) -> Result<Response, Refusal> {
    service.store().ready()?;
    Ok(Response::new(200, &json!({"status": "ready"})))
}

pub fn metrics(service: &Service) -> Response {
    METRICS.waiters.set(i64::try_from(service.queued()).unwrap_or(i64::MAX));
    Response::text(METRICS.text(), METRICS_TEXT)
}

pub fn history(service: &Service) -> Response {
    Response::new(200, &HISTORY.to_json(service.queued()))
}

pub fn openapi(_: &Service) -> Response {
    Response::text(OPENAPI, JSON)
}

pub fn page(_: &Service) -> Response {
    Response::text(PAGE.as_str(), HTML)
}
