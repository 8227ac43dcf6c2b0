//! What clients asked and were answered, with times of one monotonic clock, and what must be true of
//! it, whatever failed meanwhile. A request whose outcome is unknown may have happened or not,
//! whichever is allowed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// Time since the run began.
pub type Time = Duration;

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Event {
    pub session: usize,
    /// The message it was about, if any.
    pub message: Option<u64>,
    pub called: Time,
    pub answered: Time,
    pub asked: Asked,
    pub what: What,
}

/// What our own checks do not need, and the judge does.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub client: u64,
    pub operation: &'static str,
    /// That of the request or, if that had none, of the answer.
    pub owner_token: Option<String>,
    pub ttl_ms: Option<u64>,
}

/// What was asked and answered. The text is the owner token.
#[derive(Clone, Debug)]
pub enum What {
    Granted {
        token: String,
        fencing_token: u64,
        remaining: Duration,
        how: String,
    },
    Held,
    AnsweredAlready,
    /// An acquire without a clear answer.
    AcquireUnknown,
    Renewed {
        token: String,
        remaining: Duration,
    },
    Committed(String),
    /// By somebody else.
    CommittedAlready,
    CommitUnknown,
    Released(String),
    ReleaseUnknown(String),
    /// A renew, a commit or a release whose lease is not there any more.
    Lost(String),
    RenewUnknown,
}

/// A lease, as its owner knows it.
#[derive(Debug)]
struct Lease {
    fencing_token: u64,
    /// When it was asked for.
    called: Time,
    /// Since when its owner knows of it.
    from: Time,
    /// Until when it is certainly held.
    until: Time,
}

/// Everything that is wrong with a history.
pub fn check(history: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sessions: BTreeMap<usize, Vec<&Event>> = BTreeMap::new();
    for event in history {
        sessions.entry(event.session).or_default().push(event);
    }
    for (session, events) in sessions {
        let found = check_leases(&events).into_iter().chain(check_messages(&events));
        wrong.extend(found.map(|text| format!("session {session}: {text}")));
    }
    wrong
}

fn check_leases(events: &[&Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut leases: HashMap<(&str, u64), Lease> = HashMap::new();
    let mut fencing_tokens: HashMap<&str, Vec<u64>> = HashMap::new();
    for event in events {
        if let What::Granted { token, fencing_token, remaining, .. } = &event.what {
            let until = event.called + *remaining;
            let lease = leases.entry((token, *fencing_token)).or_insert(Lease {
                fencing_token: *fencing_token,
                called: event.called,
                from: event.answered,
                until,
            });
            lease.called = lease.called.min(event.called);
            lease.from = lease.from.min(event.answered);
            lease.until = lease.until.max(until);
            fencing_tokens.entry(token).or_default().push(*fencing_token);
        }
    }
    // A renew's answer names the owner token only, which is enough if that has a single lease.
    for event in events {
        if let What::Renewed { token, remaining } = &event.what
            && let Some([fencing_token]) = unique(&fencing_tokens, token).as_deref()
            && let Some(lease) = leases.get_mut(&(token.as_str(), *fencing_token))
        {
            lease.until = lease.until.max(event.called + *remaining);
        }
    }
    for event in events {
        let (What::Released(token) | What::ReleaseUnknown(token) | What::Lost(token)) = &event.what
        else {
            continue;
        };
        for ((owner, _), lease) in &mut leases {
            if owner != token {
                continue;
            }
            if matches!(event.what, What::Lost(_))
                && event.answered < lease.until
                && event.called > lease.from
            {
                wrong.push(format!("a lease was lost while it was held: {event:?} {lease:?}"));
            }
            lease.until = lease.until.min(event.called);
        }
    }
    let mut leases: Vec<_> = leases.into_values().collect();
    leases.sort_by_key(|lease| lease.from);
    for (number, first) in leases.iter().enumerate() {
        for second in &leases[number + 1..] {
            if second.from < first.until && second.until > second.from {
                wrong.push(format!("two leases at once: {first:?} {second:?}"));
            }
            if first.from < second.called && first.fencing_token >= second.fencing_token {
                wrong.push(format!("a fencing token sank: {first:?} {second:?}"));
            }
        }
    }
    wrong
}

fn unique(fencing_tokens: &HashMap<&str, Vec<u64>>, token: &str) -> Option<Vec<u64>> {
    let mut all = fencing_tokens.get(token)?.clone();
    all.dedup();
    Some(all)
}

fn check_messages(events: &[&Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut messages: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
    for event in events {
        if let Some(message) = event.message {
            messages.entry(message).or_default().push(event);
        }
    }
    for (message, events) in messages {
        let committed: HashSet<_> = events
            .iter()
            .filter_map(|event| match &event.what {
                What::Committed(token) => Some(token.as_str()),
                _ => None,
            })
            .collect();
        if committed.len() > 1 {
            wrong.push(format!("message {message} was committed by {committed:?}"));
        }
        let first = events
            .iter()
            .filter(|event| matches!(event.what, What::Committed(_)))
            .map(|event| event.answered)
            .min();
        let attempted = events
            .iter()
            .filter(|event| matches!(event.what, What::Committed(_) | What::CommitUnknown))
            .map(|event| event.called)
            .min();
        for event in &events {
            let is_late = first.is_some_and(|at| at < event.called);
            if matches!(event.what, What::Granted { .. }) && is_late {
                wrong.push(format!("message {message} was answered already: {event:?}"));
            }
            let is_early = attempted.is_none_or(|at| at > event.answered);
            if matches!(event.what, What::AnsweredAlready | What::CommittedAlready) && is_early {
                wrong.push(format!("message {message} was not answered yet: {event:?}"));
            }
        }
    }
    wrong
}

/// Checks the checker: it must find each kind of error, and nothing in a correct history.
pub fn check_the_checker() {
    let at = |called_ms, answered_ms, message, what| Event {
        session: 1,
        message,
        called: Duration::from_millis(called_ms),
        answered: Duration::from_millis(answered_ms),
        asked: Asked::default(),
        what,
    };
    let granted = |token: &str, fencing_token, remaining_ms| What::Granted {
        token: token.to_owned(),
        fencing_token,
        remaining: Duration::from_millis(remaining_ms),
        how: "new".to_owned(),
    };
    let a = || "a".to_owned();
    let right = [
        at(0, 2, None, granted("a", 1, 1_000)),
        at(5, 6, None, What::Held),
        // Asked for before the first was released, and granted after that.
        at(8, 14, Some(7), granted("b", 2, 1_000)),
        at(10, 12, None, What::Released(a())),
        at(20, 22, Some(7), What::CommitUnknown),
        at(23, 24, Some(7), What::AnsweredAlready),
        at(30, 31, None, What::ReleaseUnknown("b".to_owned())),
        at(32, 34, None, granted("c", 3, 100)),
        // Expired.
        at(140, 141, None, granted("d", 4, 1_000)),
        at(142, 143, None, What::Lost("c".to_owned())),
    ];
    assert_eq!(check(&right), [""; 0]);
    let wrongs: [&[Event]; 7] = [
        &[at(0, 2, None, granted("a", 1, 1_000)), at(5, 6, None, granted("b", 2, 1_000))],
        &[
            at(0, 2, None, granted("a", 1, 10)),
            at(5, 6, None, What::Renewed { token: a(), remaining: Duration::from_secs(1) }),
            at(50, 60, None, granted("b", 2, 1_000)),
        ],
        &[
            at(0, 2, None, granted("a", 2, 1_000)),
            at(3, 4, None, What::Released(a())),
            at(5, 6, None, granted("b", 1, 1_000)),
        ],
        &[at(0, 2, None, granted("a", 1, 1_000)), at(3, 4, None, What::Lost(a()))],
        &[
            at(0, 2, Some(7), What::Committed(a())),
            at(5, 6, Some(7), What::Committed("b".to_owned())),
        ],
        &[at(0, 2, Some(7), What::Committed(a())), at(5, 6, Some(7), granted("b", 1, 1_000))],
        &[at(0, 2, Some(7), What::AnsweredAlready)],
    ];
    for wrong in wrongs {
        assert_eq!(check(wrong).len(), 1, "{wrong:?}");
    }
}
