//! Cuts the history of a session into pieces that are judged one by one: the search takes time and
//! memory that grow with the square of the length, and more if it fails.
//!
//! A cut comes right after a grant, a renew or a release with no other request beside it: what holds
//! then is certain. What is not certain goes on in the next piece: an acquire of an unknown outcome
//! for some seconds, a release of one while its lease holds, a commit of one for good.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::leases::{Known, LATE_US, ends_us, leases, unknown};
use crate::lines::Line;
use crate::spec::{Action, Lease, Message, Owner, SOMEBODY, State};

/// The least number of requests in a piece, but the last.
const PIECE_LENGTH: usize = 40;

/// One operation of a piece. Without `until_us` it may happen at any time, or never.
#[derive(Clone, Debug)]
pub struct Timed {
    pub from_us: u64,
    pub until_us: Option<u64>,
    pub action: Action,
    pub text: String,
}

impl Timed {
    fn new(from_us: u64, until_us: Option<u64>, action: Action) -> Self {
        let text = format!("{action:?}");
        Self { from_us, until_us, action, text }
    }
}

pub struct Piece {
    pub begin: State,
    pub operations: Vec<Timed>,
    /// The last answer.
    pub to_us: u64,
    /// See [`crate::spec::Operation`].
    pub shown_us: Rc<[(u64, u64)]>,
}

/// The pieces of one session, whose lines are in the order of their calls.
pub fn pieces(lines: &[Line]) -> Vec<Piece> {
    let leases = leases(lines);
    let mut pieces = Vec::new();
    let mut begin = 0;
    for end in cuts(lines) {
        pieces.push(piece(lines, begin, end, &leases));
        begin = end;
    }
    pieces
}

/// False if this acquire found the session held, and no lease that is known certainly held then.
fn is_explained(line: &Line, leases: &[Known]) -> bool {
    line.outcome != "held"
        || leases.iter().any(|known| {
            Some(known.lease.owner) != line.owner && known.held(line.called_us, line.answered_us)
        })
}

/// Where the pieces end.
fn cuts(lines: &[Line]) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut begin = 0;
    // The latest answer to all but the line before, and to that.
    let mut answered_us = (0, 0);
    for (number, line) in lines.iter().enumerate() {
        let is_cut = number >= begin + PIECE_LENGTH
            && ends_certain(&lines[number - 1])
            && lines[number - 1].called_us > answered_us.0
            && line.called_us > answered_us.1;
        if is_cut {
            cuts.push(number);
            begin = number;
        }
        if line.outcome != "unknown" {
            answered_us = (answered_us.1, answered_us.1.max(line.answered_us));
        }
    }
    if begin < lines.len() {
        cuts.push(lines.len());
    }
    cuts
}

fn ends_certain(line: &Line) -> bool {
    matches!(line.outcome.as_str(), "granted" | "renewed" | "released")
}

fn piece(lines: &[Line], begin: usize, end: usize, leases: &[Known]) -> Piece {
    let own = &lines[begin..end];
    let unexplained: Vec<_> = own.iter().filter(|line| !is_explained(line, leases)).collect();
    let from_us = own[0].called_us;
    let known = own.iter().filter(|line| line.outcome != "unknown");
    let to_us = known.map(|line| line.answered_us).max().unwrap_or(from_us);
    let messages: BTreeSet<_> = own.iter().filter_map(|line| line.message).collect();
    let mut carried = Vec::new();
    let state = before(&lines[..begin], from_us, &messages, leases, &mut carried);
    let holder = state.lease.as_ref().map(|lease| lease.owner);
    carried.retain(|line| line.operation != "acquire" || matters(line, own, &unexplained));
    let operations: Vec<_> = carried
        .iter()
        .map(|line| {
            let is_over =
                line.operation == "commit" || (line.operation == "release" && line.owner != holder);
            let action = match (line.owner, line.message) {
                (Some(owner), Some(message)) if is_over => Action::Record { owner, message },
                _ => action(line, leases),
            };
            Timed::new(from_us, None, action)
        })
        .chain(
            own.iter()
                .filter(|line| matters(line, own, &unexplained))
                .map(|line| timed(line, leases)),
        )
        .collect();
    let shown_us = unexplained
        .iter()
        .map(|held| (called_before(held.called_us, &operations), held.answered_us))
        .collect();
    Piece { begin: state, operations, to_us, shown_us }
}

/// What holds after these lines, which is certain, and which of them may still take effect, or may
/// have had one on a message that appears again.
fn before(
    lines: &[Line],
    now_us: u64,
    messages: &BTreeSet<Message>,
    leases: &[Known],
    carried: &mut Vec<Line>,
) -> State {
    let Some(last) = lines.last() else {
        return State::default();
    };
    let highest = lines.iter().filter_map(|line| line.fencing_token).max().unwrap_or(0);
    let holder = last.owner.filter(|_| last.outcome != "released");
    let mut answered: BTreeMap<Message, Owner> = BTreeMap::new();
    for line in lines {
        let Some(message) = line.message.filter(|message| messages.contains(message)) else {
            continue;
        };
        match line.outcome.as_str() {
            "committed" | "released" => {
                answered.insert(message, line.owner.expect("it has one"));
            }
            "duplicate" => {
                answered.entry(message).or_insert(SOMEBODY);
            }
            _ => {}
        }
    }
    carried.extend(lines.iter().filter(|line| line.outcome == "unknown").filter_map(|line| {
        let is_kept = match line.operation.as_str() {
            "acquire" => line.answered_us + LATE_US > now_us,
            "renew" => false,
            "release" if line.owner == holder => true,
            _ => line.message.is_some_and(|message| {
                messages.contains(&message) && !answered.contains_key(&message)
            }),
        };
        is_kept.then(|| line.clone())
    }));
    // Its latest lease so far, whose fencing token a grant has named.
    let of_holder = lines.iter().filter(|line| holder.is_some() && line.owner == holder);
    let fencing_token = of_holder.filter_map(|line| line.fencing_token).max();
    let lease = holder.map(|owner| find(leases, owner, fencing_token));
    State { lease, highest, answered, now_us, ..State::default() }
}

/// The latest call of what was answered before.
fn called_before(now_us: u64, operations: &[Timed]) -> u64 {
    let before = operations.iter().filter(|timed| timed.until_us.is_some_and(|us| us < now_us));
    before.map(|timed| timed.from_us).max().unwrap_or(0)
}

fn find(leases: &[Known], owner: Owner, fencing_token: Option<u64>) -> Lease {
    let is_it = |lease: &&Lease| lease.owner == owner && lease.fencing_token == fencing_token;
    let mut leases = leases.iter().map(|known| &known.lease);
    leases.find(is_it).expect("a grant has named it").clone()
}

/// Whether it can make a difference to an answer here. If its outcome is unknown, an acquire matters
/// to others that found the session held by nobody who is known, a renew only changes when the lease
/// expires, and a commit matters if its message appears again.
fn matters(line: &Line, own: &[Line], unexplained: &[&Line]) -> bool {
    let is_shown =
        |held: &&Line| held.answered_us >= line.called_us && held.called_us <= ends_us(line);
    let is_answer = |other: &&Line| {
        other.outcome != "unknown"
            && other.message == line.message
            && other.answered_us > line.called_us
    };
    match (line.outcome.as_str(), line.operation.as_str()) {
        ("unknown", "acquire") => unexplained.iter().any(is_shown),
        ("unknown", "renew") => false,
        ("unknown", "commit") => own.iter().any(|other| is_answer(&other)),
        _ => true,
    }
}

fn timed(line: &Line, leases: &[Known]) -> Timed {
    let until_us = (line.outcome != "unknown").then_some(line.answered_us);
    Timed {
        text: format!("{line:?}"),
        ..Timed::new(line.called_us, until_us, action(line, leases))
    }
}

/// What a request did; one of an unknown outcome, if it took effect.
fn action(line: &Line, leases: &[Known]) -> Action {
    let message = line.message;
    let owner = || line.owner.expect("it has an owner token");
    let of_message = || message.expect("it has a message");
    match (line.operation.as_str(), line.outcome.as_str()) {
        ("acquire", "granted") => {
            Action::Grant { lease: find(leases, owner(), line.fencing_token), message }
        }
        ("acquire", "unknown") => Action::Grant { lease: unknown(line), message },
        ("acquire", "held") => Action::Held(line.owner),
        ("acquire", "duplicate") => Action::Answered(of_message()),
        ("renew", "renewed" | "unknown") => Action::Renew(owner()),
        ("commit", "committed" | "unknown") => {
            Action::Commit { owner: owner(), message: of_message() }
        }
        ("commit", "duplicate") => {
            Action::CommittedByOther { owner: owner(), message: of_message() }
        }
        ("release", "released" | "unknown") => Action::Release { owner: owner(), message },
        ("renew" | "commit" | "release", "lost") => Action::Lost { owner: owner(), message },
        _ => panic!("the specification does not know this: {line:?}"),
    }
}
