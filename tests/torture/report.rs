//! Prints what happened in a run, and fails if anything was wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{self, What};
use crate::judge::judge_file;
use crate::lines;
use crate::run::Run;

/// The longest that a request takes, on a slow machine.
const ENDS_WITHIN: Duration = Duration::from_secs(12);

/// Returns the number of operations.
pub fn report(name: &str, seed: u64, run: Run) -> u64 {
    let history = run.history.into_inner().unwrap();
    let faults = run.faults.into_inner().unwrap();
    let accepted = run.accepted.into_inner().unwrap();
    let slowest_ms = run.slowest_ms.into_inner();
    let unanswered = run.unanswered.into_inner().unwrap();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &history {
        *counts.entry(word(&event.what)).or_default() += 1;
    }
    println!(
        "{name}: {} operations: {counts:?}; without any answer {}; accepted: {accepted:?}; faults: {faults:?}; slowest answer {slowest_ms} ms",
        history.len(),
        unanswered.len()
    );
    let file = lines::write(&format!("{name}-{seed}"), &history);
    let mut wrong = history::check(&history);
    let missing = faults.iter().chain(&accepted).filter(|(_, count)| **count == 0);
    wrong.extend(missing.map(|(what, _)| format!("{what:?} never happened")));
    let absences = run.absences.into_inner().unwrap();
    wrong.extend(unanswered.iter().filter_map(|asked| {
        let (server, called, until) = asked;
        let is_excused = absences
            .iter()
            .any(|(absent, from, to)| absent == server && called <= to && from <= until);
        (!is_excused).then(|| format!("nobody answered, and no server had ended: {asked:?}"))
    }));
    for text in wrong.iter().take(10) {
        println!("{name}: {text}");
    }
    assert!(wrong.is_empty(), "{name}: {} things are wrong", wrong.len());
    assert!(u128::from(slowest_ms) < ENDS_WITHIN.as_millis(), "a request took {slowest_ms} ms");
    judge_file(name, &file);
    history.len() as u64
}

fn word(what: &What) -> &str {
    match what {
        What::Granted { how, .. } => how,
        What::Held => "held",
        What::AnsweredAlready | What::CommittedAlready => "answered already",
        What::Renewed { .. } => "renewed",
        What::Committed(_) => "committed",
        What::Released(_) => "released",
        What::Lost(_) => "lost",
        What::AcquireUnknown
        | What::CommitUnknown
        | What::ReleaseUnknown(_)
        | What::RenewUnknown => "without an answer, or 503",
    }
}
