//! A run's history in a file, for any checker to read: one JSON object for each request, on a line
//! of its own, in the order of the answers. The judge (`judge`) knows of a run only what is in it.
//!
//! | field | |
//! |---|---|
//! | `session` | the conversation. Nothing is shared between two of them |
//! | `client` | who asked: a client asks one thing after the other |
//! | `called_us`, `answered_us` | when it asked and had the answer, in microseconds of one monotonic clock |
//! | `operation` | `acquire`, `renew`, `commit` or `release` |
//! | `outcome` | `granted`, `held`, `duplicate`; `renewed`, `committed`, `released`, `lost`; `unknown`: a 503 or no answer, so it has happened, will happen or will never happen |
//! | `owner` | a number that stands for the owner token of the request or its answer: the token is a secret |
//! | `ttl_ms` | what the request asked for |
//! | `message` | the number of the message in the request |
//! | `fencing_token`, `remaining_ms` | as answered |
//!
//! What a request or its answer does not have is left out.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::history::{Event, What};

#[derive(Clone, Debug, Default)]
pub struct Line {
    pub session: u64,
    pub client: u64,
    pub called_us: u64,
    pub answered_us: u64,
    pub operation: String,
    pub outcome: String,
    pub owner: Option<u64>,
    pub ttl_ms: Option<u64>,
    pub message: Option<u64>,
    pub fencing_token: Option<u64>,
    pub remaining_ms: Option<u64>,
}

impl Line {
    /// `owners` has the numbers of the owner tokens so far.
    fn new(event: &Event, owners: &mut HashMap<String, u64>) -> Self {
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap();
        let (outcome, token) = outcome(&event.what);
        let next = owners.len() as u64 + 1;
        let mut number = |token: String| *owners.entry(token).or_insert(next);
        let owner = match token.or(event.asked.owner_token.as_ref()) {
            Some(token) => Some(number(token.clone())),
            // The server drew an owner token that nobody was told.
            None if outcome == "unknown" => Some(number(format!("unnamed {next}"))),
            None => None,
        };
        let (fencing_token, remaining) = match &event.what {
            What::Granted { fencing_token, remaining, .. } => {
                (Some(*fencing_token), Some(*remaining))
            }
            What::Renewed { remaining, .. } => (None, Some(*remaining)),
            _ => (None, None),
        };
        Self {
            session: event.session as u64,
            client: event.asked.client,
            called_us: micros(event.called),
            answered_us: micros(event.answered),
            operation: event.asked.operation.to_owned(),
            outcome: outcome.to_owned(),
            owner,
            ttl_ms: event.asked.ttl_ms,
            message: event.message,
            fencing_token,
            remaining_ms: remaining.map(|time| micros(time) / 1_000),
        }
    }

    fn to_json(&self) -> Value {
        let mut line = json!({
            "session": self.session,
            "client": self.client,
            "called_us": self.called_us,
            "answered_us": self.answered_us,
            "operation": self.operation,
            "outcome": self.outcome,
        });
        let optional = [
            ("owner", self.owner),
            ("ttl_ms", self.ttl_ms),
            ("message", self.message),
            ("fencing_token", self.fencing_token),
            ("remaining_ms", self.remaining_ms),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                line[name] = json!(value);
            }
        }
        line
    }

    pub fn parse(text: &str) -> Self {
        let line: Map<String, Value> = serde_json::from_str(text).expect("a line is JSON");
        let number = |name: &str| line.get(name).map(|value| value.as_u64().expect(name));
        let word = |name: &str| line[name].as_str().expect(name).to_owned();
        Self {
            session: number("session").unwrap(),
            client: number("client").unwrap(),
            called_us: number("called_us").unwrap(),
            answered_us: number("answered_us").unwrap(),
            operation: word("operation"),
            outcome: word("outcome"),
            owner: number("owner"),
            ttl_ms: number("ttl_ms"),
            message: number("message"),
            fencing_token: number("fencing_token"),
            remaining_ms: number("remaining_ms"),
        }
    }
}

/// The outcome, and the owner token that the answer was about.
fn outcome(what: &What) -> (&'static str, Option<&String>) {
    match what {
        What::Granted { token, .. } => ("granted", Some(token)),
        What::Held => ("held", None),
        What::AnsweredAlready | What::CommittedAlready => ("duplicate", None),
        What::Renewed { token, .. } => ("renewed", Some(token)),
        What::Committed(token) => ("committed", Some(token)),
        What::Released(token) => ("released", Some(token)),
        What::Lost(token) => ("lost", Some(token)),
        What::ReleaseUnknown(token) => ("unknown", Some(token)),
        What::AcquireUnknown | What::RenewUnknown | What::CommitUnknown => ("unknown", None),
    }
}

/// Writes the history of a run to `target/torture`, and returns the file.
pub fn write(name: &str, history: &[Event]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("torture");
    fs::create_dir_all(&folder).unwrap();
    let mut owners = HashMap::new();
    let lines = history.iter().map(|event| Line::new(event, &mut owners).to_json().to_string());
    let path = folder.join(format!("{name}.jsonl"));
    fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

pub fn read(path: &Path) -> Vec<Line> {
    fs::read_to_string(path).unwrap().lines().map(Line::parse).collect()
}
