//! What must never be, and how it is noticed: by comparing the table before and after a statement and
//! after a COMMIT, and by what workers are told. None of it looks at the guards.

use super::content::Content;
use super::plan::{Request, Told, Verb};
use super::sql::{Session, Stmt};
use super::table::{Conn, Row};
use super::world::{Config, OPERATOR, State, Worker, WorkerConfig};

/// What is wrong with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    TwoHolders,
    HeldSessionTaken,
    OtherSessionChanged,
    StaleHolderChanged,
    LivesBeyondMaxHold,
    FencingTokenSank,
    GrantIsNotStored,
    GrantOfAnsweredMessage,
    RefusedButChanged,
    LostButHeld,
    ReleasedNothing,
    CommittedTwice,
    CommittedWithoutLease,
    RecordReplaced,
    EffectAfterAnswer,
    OtherLeaseForced,
    Wedged,
}

impl Wrong {
    /// The promise that is broken.
    pub fn promise(self) -> &'static str {
        match self {
            Self::TwoHolders => "at most one worker is told that it holds an unexpired lease",
            Self::HeldSessionTaken => "no acquire replaces a row that holds its session",
            Self::OtherSessionChanged => "no statement changes another session's row",
            Self::StaleHolderChanged => "a stale holder's release, renew or commit changes nothing",
            Self::LivesBeyondMaxHold => "no renew goes beyond the longest hold",
            Self::FencingTokenSank => "fencing tokens of a session rise",
            Self::GrantIsNotStored => "a lease that is granted is in the table",
            Self::GrantOfAnsweredMessage => "no acquire is granted for an answered message",
            Self::RefusedButChanged => "who is told held, duplicate or lost has changed nothing",
            Self::LostButHeld => {
                "who is told lost does not hold the lease, nor is a session held of which an operator is told not_held"
            }
            Self::ReleasedNothing => "who is told released has released its lease",
            Self::CommittedTwice => "at most one owner token is told that it committed a message",
            Self::CommittedWithoutLease => "no message is committed without a live lease",
            Self::RecordReplaced => "the record of a message never changes",
            Self::EffectAfterAnswer => "no write takes effect after its operation was answered",
            Self::OtherLeaseForced => "a forced release ends the lease that it read, and no other",
            Self::Wedged => "from every state, a free session can be acquired",
        }
    }
}

/// A change of a session's row by one statement.
pub struct Change<'a> {
    pub stmt: &'a Stmt,
    pub session: Session,
    pub before: Option<&'a Row>,
    pub after: Option<&'a Row>,
    pub now_us: u64,
    /// Whether its transaction had written the row before.
    pub was_written: bool,
}

impl Change<'_> {
    /// What is wrong with what one statement did.
    pub fn wrong(&self) -> Option<Wrong> {
        let before = self.before.map(|row| &row.content);
        let of = before.and_then(Content::owner);
        let is_live = before.is_some_and(|content| content.is_live(self.now_us));
        let is_holder = |session, owner| {
            let is_session = self.session == session;
            (!is_session).then_some(Wrong::OtherSessionChanged).or_else(|| {
                let holds = of == Some(owner) && is_live;
                (!holds).then_some(Wrong::StaleHolderChanged)
            })
        };
        match self.stmt {
            Stmt::Acquire(claims) => {
                let is_own = claims.iter().any(|claim| {
                    claim.session == self.session && Some(claim.owner) == self.owner_after()
                });
                let is_old_programs = is_live && of.is_none();
                (!is_own)
                    .then_some(Wrong::OtherSessionChanged)
                    .or_else(|| is_old_programs.then_some(Wrong::HeldSessionTaken))
            }
            // It may have expired since the packet granted it.
            Stmt::ReleaseAnswered(session, owner, _) => {
                let is_own = self.session == *session && of == Some(*owner);
                (!is_own || !self.was_written).then_some(Wrong::StaleHolderChanged)
            }
            Stmt::Renew(session, owner, renewal) => is_holder(*session, *owner).or_else(|| {
                let content = &self.after?.content;
                let latest_us = content.fencing()? + renewal.max_hold_us;
                let is_late = latest_us <= self.now_us;
                let is_beyond = content.expires_us()? > latest_us + 1_000_000;
                is_late
                    .then_some(Wrong::RefusedButChanged)
                    .or_else(|| is_beyond.then_some(Wrong::LivesBeyondMaxHold))
            }),
            Stmt::Release(session, owner) => is_holder(*session, *owner),
            Stmt::ReleaseSeveral(leases) => {
                let lease = leases.iter().find(|(session, _)| *session == self.session);
                lease.map_or(Some(Wrong::OtherSessionChanged), |(session, owner)| {
                    is_holder(*session, *owner)
                })
            }
            Stmt::DeleteRow(session, _, stored) => {
                let is_meant = before.is_some_and(|content| content.text() == *stored);
                (self.session != *session)
                    .then_some(Wrong::OtherSessionChanged)
                    .or_else(|| (!is_meant).then_some(Wrong::OtherLeaseForced))
            }
            _ => None,
        }
    }

    fn owner_after(&self) -> Option<u8> {
        self.after.and_then(|row| row.content.owner())
    }
}

/// Looks at a transaction that is about to be committed, and notes what follows from it.
pub fn before_commit(state: &mut State, conn: &Conn, ends_others: bool) -> Option<Wrong> {
    for record in conn.recorded() {
        let table = &state.table;
        let holder = table.row(record.session).and_then(|row| row.content.owner());
        let old = table
            .records
            .iter()
            .find(|old| (old.session, old.message) == (record.session, record.message));
        if old.is_some_and(|old| old.owner != record.owner) {
            return Some(Wrong::RecordReplaced);
        }
        if holder != Some(record.owner) {
            return Some(Wrong::CommittedWithoutLease);
        }
    }
    for (session, row) in conn.written() {
        let before = state.table.row(*session).map(|row| row.content.clone());
        let after = row.as_ref().map(|row| &row.content);
        if before.as_ref() == after {
            continue;
        }
        if let Some(worker) = before.as_ref().and_then(Content::owner).filter(|_| ends_others)
            && let Some(worker) = state.workers.get_mut(usize::from(worker).wrapping_sub(1))
        {
            worker.was_ended = true;
            worker.until_us = 0;
        }
        let [old, new] = [before.as_ref(), after].map(|content| content.and_then(Content::fencing));
        if let (Some(new), true) = (new, new != old) {
            let highest = &mut state.fencing[usize::from(*session)];
            if new <= *highest {
                return Some(Wrong::FencingTokenSank);
            }
            *highest = new;
        }
    }
    None
}

/// An answer to a worker or an operator.
pub struct Answered {
    pub request: Request,
    pub told: Told,
    /// Whether a transaction of the operation has changed something.
    pub changed: bool,
    /// Whether a packet was lost, so that it may have done more than is known.
    pub was_lost: bool,
    pub is_from_replica: bool,
}

/// Notes what a worker is told, and what is wrong with it.
pub fn tell(config: &Config, state: &mut State, answered: &Answered) -> Option<Wrong> {
    let Answered { request, told, changed, was_lost, is_from_replica } = *answered;
    let now_us = state.table.now_us;
    let row = state.table.row(request.session).map(|row| &row.content);
    if request.owner == OPERATOR {
        let is_held = is_from_replica && row.is_some_and(|row| row.is_live(now_us));
        return tell_operator(told, changed, is_held);
    }
    let number = usize::from(request.owner) - 1;
    let holds = row.is_some_and(|row| row.owner() == Some(request.owner) && row.is_live(now_us));
    // A worker that asked twice may have two requests under way, and either may have changed it.
    let asked_once = state.left.again == config.budget.again;
    let mut worker = state.workers[number].clone();
    worker.waits_for = None;
    let others = others(config, state, number);
    let wrong = match told {
        Told::Granted { fencing, until_us, .. } => {
            worker.stage = worker.stage.max(1);
            worker.until_us = if holds || !worker.was_ended { until_us } else { 0 };
            worker.was_ended &= !holds;
            let is_second = worker.until_us.min(latest_us(&others)) > now_us;
            let is_stored = fencing <= state.fencing[usize::from(request.session)];
            let is_answered = asked_once && is_answered(state, request);
            [
                (!is_stored || is_from_replica && !holds, Wrong::GrantIsNotStored),
                (is_second, Wrong::TwoHolders),
                (is_answered, Wrong::GrantOfAnsweredMessage),
            ]
        }
        Told::Renewed { until_us } => {
            worker.until_us = if worker.was_ended { 0 } else { until_us };
            return finish(state, number, worker, []);
        }
        Told::Committed => {
            worker.has_committed = true;
            let is_same = |other: &(&Worker, &WorkerConfig)| {
                other.0.has_committed && other.1.message == request.message
            };
            let is_second = others.iter().any(is_same);
            return finish(state, number, worker, [(is_second, Wrong::CommittedTwice)]);
        }
        Told::Held | Told::Duplicate | Told::Lost | Told::MaxHold => {
            worker.until_us = 0;
            let holds = holds && asked_once;
            let wrongs = refused(request.verb, told, changed, holds, &mut worker);
            return finish(state, number, worker, wrongs);
        }
        Told::Unavailable(_) => {
            // It may ask again.
            worker.waits_for = Some(request.verb);
            return finish(state, number, worker, []);
        }
        Told::Released => {
            return finish(
                state,
                number,
                worker,
                [(!changed && !was_lost, Wrong::ReleasedNothing)],
            );
        }
        Told::Forced(_) | Told::NotHeld => return finish(state, number, worker, []),
    };
    finish(state, number, worker, wrong)
}

fn refused(
    verb: Verb,
    told: Told,
    changed: bool,
    holds: bool,
    worker: &mut Worker,
) -> [(bool, Wrong); 2] {
    let is_acquire = matches!(verb, Verb::Acquire { .. });
    if is_acquire {
        worker.stage = Verb::OVER;
    }
    // What a lost packet has written may have ended since.
    let may_have = verb == Verb::Renew || is_acquire && !holds;
    let is_lost = told == Told::Lost && holds;
    [(changed && !may_have, Wrong::RefusedButChanged), (is_lost, Wrong::LostButHeld)]
}

/// Until when any of these workers believes to hold the lease.
fn latest_us(workers: &[(&Worker, &WorkerConfig)]) -> u64 {
    workers.iter().map(|(worker, _)| worker.until_us).max().unwrap_or_default()
}

fn tell_operator(told: Told, changed: bool, is_held: bool) -> Option<Wrong> {
    match told {
        Told::NotHeld if changed => Some(Wrong::RefusedButChanged),
        Told::NotHeld if is_held => Some(Wrong::LostButHeld),
        _ => None,
    }
}

fn is_answered(state: &State, request: Request) -> bool {
    state
        .table
        .records
        .iter()
        .any(|record| record.session == request.session && Some(record.message) == request.message)
}

fn finish<const N: usize>(
    state: &mut State,
    number: usize,
    worker: Worker,
    wrongs: [(bool, Wrong); N],
) -> Option<Wrong> {
    state.workers[number] = worker;
    wrongs.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, wrong)| wrong)
}

/// The other workers of the same session.
fn others<'a>(
    config: &'a Config,
    state: &'a State,
    number: usize,
) -> Vec<(&'a Worker, &'a WorkerConfig)> {
    let all = state.workers.iter().zip(config.workers).enumerate();
    let session = config.workers[number].session;
    let same = all.filter(|(other, (_, config))| *other != number && config.session == session);
    same.map(|(_, other)| other).collect()
}
