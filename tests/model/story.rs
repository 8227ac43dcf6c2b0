//! A way through the states, for people.

use std::fmt::Write;

use stateright::Path;

use super::content::Content;
use super::plan::{Event, Verb};
use super::sql::Stmt;
use super::world::{Action, Config, Flight, Line, OPERATOR, Old, State, Sweep};

/// One line a step; below it, what is different in the table now.
pub fn tell(config: &Config, path: Path<State, Action>) -> String {
    let steps = path.into_vec();
    let mut text = String::new();
    for (number, pair) in steps.windows(2).enumerate() {
        let [(state, Some(action)), (next, _)] = pair else { continue };
        let line = describe(config, state, *action);
        writeln!(text, "{:>3}. {line}", number + 1).expect("it is memory");
        for line in differences(state, next) {
            writeln!(text, "       {line}").expect("it is memory");
        }
    }
    let wrong = steps.last().and_then(|(state, _)| state.wrong);
    text + &wrong.map_or_else(String::new, |wrong| format!("     Broken: {}.\n", wrong.promise()))
}

fn describe(config: &Config, state: &State, action: Action) -> String {
    match action {
        Action::Ask(worker, verb) => {
            format!("{} asks for {}", worker_name(config, worker), verb_name(verb))
        }
        Action::AskTogether(one, verb, two, with) => format!(
            "{} asks for {}, and {} for {}, in one packet",
            worker_name(config, one),
            verb_name(verb),
            worker_name(config, two),
            verb_name(with)
        ),
        Action::AskAgain(worker, server) => {
            let name = worker_name(config, worker);
            format!("{name} has heard nothing and asks server {server} again, with the same token")
        }
        Action::OperatorAsks => "the operator asks for a forced release".to_owned(),
        Action::Crash(server) => format!("server {server} crashes"),
        Action::RunStray(at) => {
            let stray = &state.strays[at];
            let stmt = stray.stmts[stray.at..].iter().find(|stmt| !stmt.is_prelude());
            let stmt = stmt.map_or("COMMIT", Stmt::file);
            format!("a packet of worker {} that nobody waits for: {stmt}", stray.owner)
        }
        Action::EndStray(_) => "a connection that nobody waits for ends".to_owned(),
        Action::Old(at) => {
            let what = match state.olds[at] {
                Old::Idle => "checks the row",
                Old::Checked => "found it free and writes its date",
                Old::Holds(_) | Old::Over => "deletes the row",
            };
            format!("old program {}: {what}", at + 1)
        }
        Action::Sweep if state.sweep == Sweep::Idle => "the sweep reads the row".to_owned(),
        Action::Sweep => "the sweep deletes the row that it read".to_owned(),
        Action::Jump => "more than half of a ttl passes".to_owned(),
        Action::StepBack => "the database's clock steps back".to_owned(),
        Action::Import => "an import exchanges the ids of the rows".to_owned(),
        Action::Lag => "the replica stops applying what the primary does".to_owned(),
        action => describe_flight(state, action),
    }
}

/// What happens to a batch in a server.
fn describe_flight(state: &State, action: Action) -> String {
    let (at, what) = match action {
        Action::Run(at) | Action::Deliver(at) => (at, ""),
        Action::RunColliding(at) => (at, ", with the id of another row"),
        Action::DeliverUnheard(at) => (at, ", but nobody hears the answer"),
        Action::RunAndLose(at) => (at, "; then the connection is lost"),
        Action::Lose(at) => (at, "the connection is lost"),
        Action::RunLost(at) => (at, "the lost packet runs on"),
        Action::Kill(at) => (at, "the lost connection is killed"),
        Action::RowLocked(at) => (at, "the wait for a lock times out"),
        Action::Deadlock(at) => (at, "it is rolled back to end a deadlock"),
        Action::ReachReplica(at) => (at, "the packet reaches the replica"),
        other => unreachable!("it is described above: {other:?}"),
    };
    let flight = &state.flights[at];
    let runs = what.is_empty() || what.starts_with([',', ';']);
    let stmt = if runs { next_stmt(flight) } else { "" };
    format!("{}: {stmt}{what}", flight_name(flight))
}

fn worker_name(config: &Config, worker: usize) -> String {
    let server = config.workers[worker].server;
    format!("worker {} (server {server})", worker + 1)
}

fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Acquire { reads_first: false } => "the lease",
        Verb::Acquire { reads_first: true } => "the lease, which its server believes to be held",
        Verb::Renew => "a renewal",
        Verb::Commit => "a commit of its message",
        Verb::Release => "a release",
        Verb::Finish => "a release with its message",
        Verb::Force => "a forced release",
    }
}

fn flight_name(flight: &Flight) -> String {
    let members = flight.batch.iter().map(|progress| match progress.request.owner {
        OPERATOR => "the operator".to_owned(),
        owner => format!("worker {owner}"),
    });
    let members = members.collect::<Vec<_>>().join(" and ");
    let packets = flight.batch[0].events.iter().filter(|event| !matches!(event, Event::Lost(_)));
    format!("{members}, server {}, packet {}", flight.server, packets.count() + 1)
}

fn next_stmt(flight: &Flight) -> &'static str {
    let plan = flight.plan();
    let (Line::Packet { at, .. }, Some(sending)) = (&flight.line, plan.sending()) else {
        return "";
    };
    let mut rest = sending.stmts[*at..].iter().filter(|stmt| !stmt.is_prelude());
    rest.next().map_or("the replies arrive", Stmt::file)
}

/// What has changed for everybody, and what workers believe.
fn differences(state: &State, next: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for session in 0..u8::try_from(state.fencing.len()).expect("few sessions") {
        let [before, after] =
            [state, next].map(|state| state.table.row(session).map(|row| row.content.clone()));
        if before != after {
            lines
                .push(format!("session {session}: {}", content(after.as_ref(), next.table.now_us)));
        }
    }
    for record in next.table.records.iter().filter(|record| !state.table.records.contains(record)) {
        let (message, owner) = (record.message, record.owner);
        lines.push(format!("message {message} is answered by worker {owner}"));
    }
    for (number, (before, after)) in (1..).zip(state.workers.iter().zip(&next.workers)) {
        if before.waits_for.is_some() && after.waits_for.is_none() {
            let holds = if after.until_us > next.table.now_us { "holds" } else { "does not hold" };
            lines.push(format!("worker {number} has its answer: it {holds}"));
        }
    }
    lines
}

fn content(content: Option<&Content>, now_us: u64) -> String {
    let life = |content: &Content| if content.is_live(now_us) { "live" } else { "expired" };
    match content {
        None => "no row".to_owned(),
        Some(lease @ Content::Lease { owner, fencing, .. }) => {
            format!(
                "a lease of worker {owner}, fencing token …{:010}, {}",
                fencing % 10_000_000_000,
                life(lease)
            )
        }
        Some(date @ Content::Date(_)) => format!("an old program's date, {}", life(date)),
        Some(Content::Garbage) => "no date".to_owned(),
    }
}
