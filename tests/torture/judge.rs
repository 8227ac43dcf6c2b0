//! Somebody else's eyes on a history: `WGLChecker` of `todc-utils`, which knows nothing of this
//! program, looks for an order of a session's requests in which each was answered as the
//! specification (`spec`) says, and which agrees with the times. If there is none, the history is
//! wrong.
//!
//! Our own checks (`history`) look for errors that we thought of; this one needs no idea of them.
//! `HISTORY=FILE cargo test --test torture` judges one file (`lines`) and does nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action::Call, Action::Response, History};

use crate::lines::{Line, read};
use crate::pieces::{Piece, pieces};
use crate::spec::{self, Lock, Operation, STEPS_MOST, take_steps};

/// One piece of so many may take too many steps; it took one of 10,000. More, and the run fails.
const UNJUDGED_SHARE: usize = 100;

/// What the judge says of a history.
#[derive(Debug, Default)]
pub struct Verdict {
    pub wrong: Vec<String>,
    /// Pieces for which the search was given up.
    pub unjudged: Vec<String>,
    sessions: usize,
    requests: usize,
    unknown: usize,
    pub pieces: usize,
    longest: usize,
    steps: u64,
    steps_most: u64,
    took: Duration,
}

/// Whether there is an order, if the search came to an end.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Order,
    NoOrder,
    TooManySteps,
}

/// Judges a file, and fails if the history is wrong.
pub fn judge_file(name: &str, path: &Path) {
    let verdict = judge(&read(path));
    println!("{name}: {}: {}", path.display(), verdict.figures());
    for text in verdict.wrong.iter().chain(&verdict.unjudged).take(10) {
        println!("{name}: {text}");
    }
    assert!(verdict.wrong.is_empty(), "{name}: {} pieces are wrong", verdict.wrong.len());
    let unjudged = verdict.unjudged.len();
    assert!(
        unjudged * UNJUDGED_SHARE <= verdict.pieces,
        "{name}: {unjudged} pieces are not judged"
    );
}

pub fn judge(lines: &[Line]) -> Verdict {
    let began = Instant::now();
    let mut sessions: BTreeMap<u64, Vec<Line>> = BTreeMap::new();
    for line in lines {
        sessions.entry(line.session).or_default().push(line.clone());
    }
    let is_unknown = |line: &&Line| line.outcome == "unknown";
    let mut verdict = Verdict {
        sessions: sessions.len(),
        requests: lines.len(),
        unknown: lines.iter().filter(is_unknown).count(),
        ..Verdict::default()
    };
    for (session, mut lines) in sessions {
        lines.sort_by_key(|line| line.called_us);
        for piece in pieces(&lines) {
            verdict.add(session, &piece);
        }
    }
    verdict.took = began.elapsed();
    verdict
}

impl Verdict {
    pub fn figures(&self) -> String {
        format!(
            "{} sessions with {} requests, {} of them of an unknown outcome, in {} pieces of at most {} operations: {} steps, at most {} for a piece, {} ms",
            self.sessions,
            self.requests,
            self.unknown,
            self.pieces,
            self.longest,
            self.steps,
            self.steps_most,
            self.took.as_millis(),
        )
    }

    fn add(&mut self, session: u64, piece: &Piece) {
        let (found, steps) = search(piece, piece.to_us);
        self.pieces += 1;
        self.longest = self.longest.max(piece.operations.len());
        self.steps += steps;
        self.steps_most = self.steps_most.max(steps);
        match found {
            Found::Order => {}
            Found::NoOrder => self.wrong.push(format!("session {session}: {}", explain(piece))),
            Found::TooManySteps => {
                self.unjudged.push(format!("session {session}: not judged in {STEPS_MOST} steps"));
            }
        }
    }
}

/// Looks for an order of what had happened at this time. What was not answered yet may have happened
/// or not.
fn search(piece: &Piece, now_us: u64) -> (Found, u64) {
    // For each call and response: its time, whether it is a response, the number of its operation.
    // At the same time, calls come first: the requests may have overlapped.
    let mut times = Vec::new();
    let mut operations: Vec<Operation> =
        vec![spec::Action::Begin(piece.begin.clone()).into(), spec::Action::End.into()];
    for timed in piece.operations.iter().filter(|timed| timed.from_us <= now_us) {
        let is_answered = timed.until_us.is_some_and(|us| us <= now_us);
        let number = operations.len();
        operations.push(Operation {
            action: timed.action.clone(),
            called_us: timed.from_us,
            answered_us: timed.until_us.filter(|_| is_answered),
            shown_us: Rc::clone(&piece.shown_us),
        });
        times.push((timed.from_us, false, number));
        // The responses of the others follow the end.
        times.push((timed.until_us.filter(|_| is_answered).unwrap_or(u64::MAX), true, number));
    }
    times.sort_unstable();
    let is_before = |time: &&(u64, bool, usize)| time.0 != u64::MAX;
    let before = times.iter().filter(is_before).copied();
    let after = times.iter().filter(|time| !is_before(time)).copied();
    let ends = |number| [(0, false, number), (0, true, number)];
    let actions = ends(0).into_iter().chain(before).chain(ends(1)).chain(after);
    let actions = actions.map(|(_, is_response, number)| {
        let operation = operations[number].clone();
        (number, if is_response { Response(operation) } else { Call(operation) })
    });
    let history = History::from_actions(actions.collect());
    take_steps();
    let is_linearizable = WGLChecker::<Lock>::is_linearizable(history);
    let steps = take_steps();
    let found = match (is_linearizable, steps > STEPS_MOST) {
        (true, _) => Found::Order,
        (false, false) => Found::NoOrder,
        (false, true) => Found::TooManySteps,
    };
    (found, steps)
}

/// The first answer that no order explains, and what was answered just before.
fn explain(piece: &Piece) -> String {
    let mut answers: Vec<_> = piece
        .operations
        .iter()
        .filter_map(|timed| timed.until_us.filter(|us| *us <= piece.to_us).map(|us| (us, timed)))
        .collect();
    answers.sort_by_key(|(us, _)| *us);
    // What has no order has none with more answers either.
    let first = answers.partition_point(|(us, _)| search(piece, *us).0 == Found::Order);
    let texts: Vec<_> = answers[first.saturating_sub(9)..(first + 1).min(answers.len())]
        .iter()
        .map(|(_, timed)| format!("\n  {}", timed.text))
        .collect();
    format!("no order of the requests explains the last answer of these:{}", texts.concat())
}
