//! The one place where an outcome becomes a response: status, JSON, log line and counter.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::Level::{self, Debug, Info, Warn};
use log::{log, warn};
use prometheus::IntCounterVec;
use serde_json::{Value, json};

use super::response::{Refusal, Response};
use crate::lease::{
    Committed, FencingToken, Forced, HOLD_MS, Holder, Holding, How, Lease, MessageId, Record,
    Released, Renewed, Session, Stale, TTL_MAX_MS,
};
use crate::metrics::METRICS;
use crate::page_history::{Event, HISTORY};
use crate::service::Outcome;
use crate::store::{Operation, StoreError};

/// The largest `Retry-After` for a held session, regardless of the lease's length: its holder may
/// release it at any time.
const RETRY_AFTER_MAX_S: u64 = 30;

/// Tolerated difference between two clocks. A row that is dated even further ahead than its kind
/// explains gets a warning.
const AHEAD_TOLERANCE: Duration = Duration::from_secs(5);

/// What an outcome becomes.
struct Rendered {
    /// The label of its counter.
    counted: &'static str,
    level: Level,
    /// The log line consists of this text, the session, and the details.
    line: &'static str,
    details: String,
    response: Response,
}

/// The response to a request from `peer`. Counts and logs it, unless it says nothing of the session.
pub fn respond(operation: &Operation, peer: Option<SocketAddr>, outcome: Outcome) -> Response {
    let session = operation.session();
    let message_id = operation.message_id();
    let Rendered { counted, level, line, details, response } = match outcome {
        Outcome::Granted(lease) => granted(session, &lease),
        Outcome::Held(holding, waiters) => held(session, &holding, waiters),
        Outcome::Duplicate(record) => duplicate(message_id, &record),
        Outcome::Renew(renewed) => renew(&renewed),
        Outcome::Commit(committed) => commit(&committed, message_id),
        Outcome::Release(released) => release(released, message_id),
        Outcome::Force(forced) => force(session, forced, peer),
        Outcome::Failed(error @ StoreError::NotStorable(_)) => return Refusal::from(error).into(),
        Outcome::Failed(error) => failed(format!(": {error}"), error.into()),
        Outcome::Stopping => return Refusal::Stopping.into(),
    };
    if let Some(counters) = counters(operation) {
        counters.with_label_values(&[counted]).inc();
    }
    log!(level, "{line} {session}{details}");
    response
}

/// Where the outcomes of an operation are counted.
fn counters(operation: &Operation) -> Option<&'static IntCounterVec> {
    match operation {
        Operation::Acquire(..) | Operation::Find(_) => Some(&METRICS.acquires),
        Operation::Renew(_) => Some(&METRICS.renews),
        Operation::Commit(_) => Some(&METRICS.commits),
        Operation::Release(_) | Operation::Force(_) => Some(&METRICS.releases),
        Operation::Read(_) => None,
    }
}

fn failed(details: String, refusal: Refusal) -> Rendered {
    Rendered {
        counted: "failed",
        level: Debug,
        line: "Session lock not served",
        details,
        response: refusal.into(),
    }
}

fn granted(session: &Session, lease: &Lease) -> Rendered {
    let Lease { owner_token, fencing_token: FencingToken(fencing_token), how, .. } = lease;
    if lease.is_too_short() {
        // Its packet waited, or this process was paused. A requester that repeats its request gets
        // the remaining time.
        let message = "the lease was granted too long ago to be returned; repeat the same request with this owner_token";
        let refusal = Refusal::Unavailable(message.to_owned(), Some(owner_token.clone()));
        return failed(format!(": {message}"), refusal);
    }
    if let How::Takeover(stale) = how {
        let was_lease = *stale == Stale::Lease;
        METRICS.overruns.inc_by(was_lease.into());
        HISTORY.note(Event::Takeover, was_lease, session);
    }
    let remaining_ms = whole_ms(lease.remaining());
    let body = json!({
        "granted": true,
        "owner_token": owner_token.secret(),
        "fencing_token": fencing_token,
        "remaining_ms": remaining_ms,
        "how": how.word(),
    });
    Rendered {
        counted: how.word(),
        level: Info,
        line: match how {
            How::New => "Session lock acquired successfully",
            How::Takeover(_) => "Session lock taken over from a stale holder",
            How::Again => "Session lock acquired again by its holder",
        },
        details: format!(
            " owner=…{owner_token} fencing_token={fencing_token} remaining_ms={remaining_ms}"
        ),
        response: Response::new(200, &body),
    }
}

fn held(session: &Session, holding: &Holding, waiters: usize) -> Rendered {
    let is_legacy = holding.holder == Holder::Legacy;
    if is_legacy {
        METRICS.legacy_rows_seen.inc();
    }
    let remaining = holding.remaining();
    let remaining_ms = whole_ms(remaining);
    let explained_ms = if is_legacy { HOLD_MS } else { TTL_MAX_MS };
    if remaining > Duration::from_millis(explained_ms) + AHEAD_TOLERANCE {
        warn!(
            "Session lock dated ahead of the database's clock, by a program in another time zone? {session} \
             remaining_ms={remaining_ms}; an operator can force its release"
        );
    }
    let body = json!({"granted": false, "reason": "held", "remaining_ms": remaining_ms, "waiters": waiters});
    let retry_after_s = remaining_ms.div_ceil(1_000).clamp(1, RETRY_AFTER_MAX_S);
    Rendered {
        counted: "held",
        level: Info,
        line: "Session lock held, duplicate rejected",
        details: format!(" remaining_ms={remaining_ms}"),
        response: Response { retry_after_s: Some(retry_after_s), ..Response::new(409, &body) },
    }
}

/// The answer to an acquire whose message is answered.
fn duplicate(message_id: Option<&MessageId>, record: &Record) -> Rendered {
    let committed_ms_ago = whole_ms(record.committed_ago);
    let body = json!({
        "granted": false, "reason": "duplicate", "message_id": message_id.map(MessageId::as_str),
        "committed_ms_ago": committed_ms_ago,
    });
    Rendered {
        counted: "duplicate",
        level: Info,
        line: "Message answered already, duplicate rejected",
        details: format!("{} committed_ms_ago={committed_ms_ago}", message_details(message_id)),
        response: Response::duplicate(&body, record),
    }
}

fn renew(renewed: &Renewed) -> Rendered {
    let (counted, level, line) = match renewed {
        Renewed::Renewed { .. } => ("renewed", Debug, "Session lock renewed"),
        Renewed::Lost => ("lost", Info, "Session lock lost before its renewal"),
        Renewed::MaxHold => (
            "max_hold",
            Warn,
            "Session lock held for as long as it can be (SESSION_LOCK_MAX_HOLD_MS)",
        ),
    };
    let mut details = String::new();
    let response = match renewed {
        Renewed::Renewed { fencing_token: FencingToken(number), expires } => {
            let remaining_ms = whole_ms(expires.saturating_duration_since(Instant::now()));
            details = format!(" fencing_token={number} remaining_ms={remaining_ms}");
            let body =
                json!({"renewed": true, "remaining_ms": remaining_ms, "fencing_token": number});
            Response::new(200, &body)
        }
        _ => Response::new(409, &json!({"renewed": false, "reason": counted})),
    };
    Rendered { counted, level, line, details, response }
}

fn commit(committed: &Committed, message_id: Option<&MessageId>) -> Rendered {
    let (counted, level, line) = match committed {
        Committed::New => ("new", Info, "Message committed"),
        Committed::Again => ("again", Debug, "Message committed again by its worker"),
        Committed::Lost => ("lost", Info, "Session lock lost before its commit"),
        Committed::Duplicate(_) => ("duplicate", Info, "Message answered already, commit rejected"),
    };
    let response = match committed {
        Committed::New | Committed::Again => {
            Response::new(200, &json!({"committed": true, "how": counted}))
        }
        Committed::Lost => Response::new(409, &json!({"committed": false, "reason": counted})),
        Committed::Duplicate(record) => {
            Response::duplicate(&json!({"committed": false, "reason": counted}), record)
        }
    };
    Rendered { counted, level, line, details: message_details(message_id), response }
}

fn release(released: Released, message_id: Option<&MessageId>) -> Rendered {
    match released {
        Released::Released => Rendered {
            counted: "released",
            level: Info,
            line: "Session lock released and cleaned up successfully",
            details: message_details(message_id),
            response: Response::new(200, &json!({"released": true})),
        },
        Released::Lost => Rendered {
            counted: "lost",
            level: Info,
            line: "Session lock lost before its release",
            details: String::new(),
            response: Response::new(409, &json!({"released": false, "reason": "lost"})),
        },
    }
}

fn force(session: &Session, forced: Forced, peer: Option<SocketAddr>) -> Rendered {
    match forced {
        Forced::Released(holder) => {
            HISTORY.note(Event::Forced, holder != Holder::Legacy, session);
            let peer = peer.map_or("a local client".to_owned(), |peer| peer.to_string());
            let ended = match holder {
                Holder::Leased { fencing_token: FencingToken(number), held_ms } => {
                    format!("fencing_token={number} held_ms={held_ms}")
                }
                Holder::Legacy => "an old program's row".to_owned(),
            };
            Rendered {
                counted: "forced",
                level: Warn,
                line: "Session lock released by force",
                details: format!(" by {peer}, {ended}"),
                response: Response::new(200, &json!({"released": true})),
            }
        }
        Forced::NotHeld => Rendered {
            counted: "not_held",
            level: Debug,
            line: "Session lock not held, nothing to release by force",
            details: String::new(),
            response: Response::new(409, &json!({"released": false, "reason": "not_held"})),
        },
    }
}

fn message_details(message_id: Option<&MessageId>) -> String {
    message_id.map_or(String::new(), |id| format!(" message_id={:?}", id.as_str()))
}

/// Adds what every caller may know about a held session.
pub fn describe(body: &mut Value, session: &Session, holding: &Holding, waiters: usize) {
    let (fencing_token, held_ms) = match holding.holder {
        Holder::Leased { fencing_token, held_ms } => (Some(fencing_token.0), Some(held_ms)),
        Holder::Legacy => (None, None),
    };
    body["id_prospect"] = json!(session.id_prospect.as_str());
    body["id_device"] = json!(session.id_device.as_str());
    body["remaining_ms"] = json!(whole_ms(holding.remaining()));
    body["held_ms"] = json!(held_ms);
    body["fencing_token"] = json!(fencing_token);
    body["legacy"] = json!(holding.holder == Holder::Legacy);
    body["waiters"] = json!(waiters);
}

fn whole_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
