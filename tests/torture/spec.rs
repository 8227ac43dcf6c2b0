//! What one session does when one thing happens after the other: the sequential specification, a
//! lock that expires and remembers the messages that were answered.
//!
//! No server is mentioned: which one answered must not matter.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::iter;
use std::rc::Rc;

use todc_utils::specifications::Specification;

/// Several times what a piece of a history has needed, in some seconds.
pub const STEPS_MOST: u64 = 10_000_000;

thread_local! {
    /// How often the checker has tried an operation since `take_steps`.
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// How many steps were taken since the last call.
pub fn take_steps() -> u64 {
    STEPS.take()
}

pub type Owner = u64;

pub type Message = u64;

/// The committer of a message of which it is only known that it was committed.
pub const SOMEBODY: Owner = 0;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub owner: Owner,
    /// None if no answer has named it.
    pub fencing_token: Option<u64>,
    /// It can expire from this time on.
    pub earliest_us: u64,
    /// It has expired by this time. `u64::MAX` if that is not known.
    pub latest_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub lease: Option<Lease>,
    /// The highest fencing token that was answered.
    pub highest: u64,
    /// The messages that were answered, and by whom.
    pub answered: BTreeMap<Message, Owner>,
    /// It is at least this late.
    pub now_us: u64,
    /// The state before the last operation, if that need not have happened, or not yet, and no
    /// answer has shown it.
    pub unseen: Option<Box<State>>,
    /// The history is over. What is left has not happened.
    pub has_ended: bool,
}

#[derive(Clone, Debug)]
pub enum Action {
    /// The first operation: what was before.
    Begin(State),
    /// The last.
    End,
    Grant {
        lease: Lease,
        message: Option<Message>,
    },
    Held(Option<Owner>),
    /// An acquire for a message that was answered.
    Answered(Message),
    Renew(Owner),
    /// A renew, a commit or a release whose lease is over.
    Lost {
        owner: Owner,
        message: Option<Message>,
    },
    Commit {
        owner: Owner,
        message: Message,
    },
    /// A commit of a message that somebody else committed.
    CommittedByOther {
        owner: Owner,
        message: Message,
    },
    Release {
        owner: Owner,
        message: Option<Message>,
    },
    /// A commit that may have taken effect before the first operation.
    Record {
        owner: Owner,
        message: Message,
    },
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub action: Action,
    pub called_us: u64,
    /// Without an answer, it may as well never happen.
    pub answered_us: Option<u64>,
    /// A grant that need not happen makes a difference only to an acquire that finds the session
    /// held: the latest call before one of these, and its answer.
    pub shown_us: Rc<[(u64, u64)]>,
}

pub struct Lock;

impl Specification for Lock {
    type State = State;
    type Operation = Operation;

    fn init() -> State {
        State::default()
    }

    fn apply(operation: &Operation, state: &State) -> (bool, State) {
        STEPS.set(STEPS.get() + 1);
        // The checker has no limit of its own. When nothing is possible any more, it ends.
        let next = (STEPS.get() <= STEPS_MOST).then(|| operation.next(state)).flatten();
        // The checker does not look at the state after what is impossible.
        (next.is_some(), next.unwrap_or_default())
    }
}

impl From<Action> for Operation {
    fn from(action: Action) -> Self {
        Self { action, called_us: 0, answered_us: Some(u64::MAX), shown_us: Rc::default() }
    }
}

impl Operation {
    fn next(&self, state: &State) -> Option<State> {
        if state.has_ended {
            return Some(state.clone());
        }
        let now_us = state.now_us.max(self.called_us);
        match self.answered_us {
            // A lease that expired during the operation.
            Some(answered_us) if answered_us >= now_us => {
                let begin = State { now_us, ..state.at(now_us) };
                let next = self.after(&begin);
                next.or_else(|| self.after(&begin.expired(answered_us)?))
            }
            Some(_) => None,
            None => self.unseen(state, now_us),
        }
    }

    /// After an operation that has an answer.
    fn after(&self, state: &State) -> Option<State> {
        let next = self.action.next(state)?;
        // A grant or a release that may as well happen later, or never, does so until an answer is
        // impossible without it. This saves the search nearly all of its work.
        let is_shown = |before: &State| self.action.next(&before.at(state.now_us)).is_none();
        let mut befores = iter::successors(state.unseen.as_deref(), |s| s.unseen.as_deref());
        let is_end = matches!(self.action, Action::End);
        (is_end || befores.all(is_shown)).then_some(State { unseen: None, ..next })
    }

    /// After one that has none, if it makes a difference.
    fn unseen(&self, state: &State, now_us: u64) -> Option<State> {
        let is_near = |us: &(u64, u64)| us.0 <= now_us && now_us <= us.1;
        let may_matter = match self.action {
            Action::Grant { .. } => self.shown_us.iter().any(is_near),
            Action::Release { owner, .. } | Action::Commit { owner, .. } => state.is_held_by(owner),
            Action::Record { .. } => true,
            _ => false,
        };
        if !may_matter {
            return None;
        }
        let begin = State { now_us, ..state.at(now_us) };
        match self.action {
            Action::Grant { .. } => {
                let free = match begin.lease {
                    None => begin,
                    Some(_) if begin.unseen.is_some() => return None,
                    Some(_) => {
                        State { unseen: Some(Box::new(begin.clone())), ..begin.expired(u64::MAX)? }
                    }
                };
                let next = self.action.next(&free)?;
                Some(State { unseen: Some(Box::new(free)), ..next })
            }
            Action::Release { .. } => {
                let next = self.action.next(&begin).filter(|_| begin.unseen.is_none())?;
                let is_released = begin.lease.is_some();
                is_released.then(|| State { unseen: Some(Box::new(begin)), ..next })
            }
            // It cannot happen later if the lease ends.
            _ => {
                let next = self.action.next(&begin).filter(|_| begin.unseen.is_none())?;
                (next.answered != begin.answered).then_some(next)
            }
        }
    }
}

impl Action {
    /// The state after it, if it is possible.
    fn next(&self, state: &State) -> Option<State> {
        let mut next = state.clone();
        let is_possible = match self {
            Self::Begin(begin) => {
                next = begin.clone();
                true
            }
            Self::End => {
                next.has_ended = true;
                true
            }
            Self::Grant { lease, message } => {
                message.is_none_or(|message| !state.answered.contains_key(&message))
                    && next.grant(lease)
            }
            Self::Held(owner) => {
                state.lease.as_ref().is_some_and(|lease| Some(lease.owner) != *owner)
            }
            Self::Answered(message) => state.answered.contains_key(message),
            Self::Renew(owner) => state.is_held_by(*owner),
            Self::Lost { owner, message } => {
                !state.is_held_by(*owner)
                    && message.is_none_or(|message| state.answered.get(&message) != Some(owner))
            }
            Self::Commit { owner, message } => next.commit(*owner, *message),
            Self::CommittedByOther { owner, message } => {
                state.answered.get(message).is_some_and(|by| by != owner)
            }
            Self::Release { owner, message } => next.release(*owner, *message),
            Self::Record { owner, message } => {
                next.answered.entry(*message).or_insert(*owner);
                true
            }
        };
        is_possible.then_some(next)
    }
}

impl State {
    /// With the lease that holds at this time, at the latest.
    fn at(&self, now_us: u64) -> Self {
        let mut state = self.clone();
        state.lease.take_if(|lease| lease.latest_us < now_us);
        state
    }

    /// Once the lease has expired, if it can by this time.
    fn expired(&self, by_us: u64) -> Option<Self> {
        let earliest_us = self.lease.as_ref()?.earliest_us;
        let now_us = self.now_us.max(earliest_us);
        (earliest_us <= by_us).then(|| Self { lease: None, now_us, ..self.clone() })
    }

    fn is_held_by(&self, owner: Owner) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.owner == owner)
    }

    // Each of these returns whether it is possible.

    fn grant(&mut self, lease: &Lease) -> bool {
        let is_new = lease.fencing_token.is_none_or(|token| token > self.highest);
        let is_possible = match &self.lease {
            None => is_new,
            Some(before) if before.owner != lease.owner => false,
            // Again; the first answer may have been lost.
            Some(before) => {
                before.fencing_token == lease.fencing_token
                    || (before.fencing_token.is_none() && is_new)
            }
        };
        self.lease = Some(lease.clone());
        self.highest = self.highest.max(lease.fencing_token.unwrap_or(0));
        is_possible
    }

    fn commit(&mut self, owner: Owner, message: Message) -> bool {
        let by = self.answered.insert(message, owner);
        match by {
            None => self.is_held_by(owner),
            // Again, also after its lease.
            Some(by) => by == owner || by == SOMEBODY,
        }
    }

    fn release(&mut self, owner: Owner, message: Option<Message>) -> bool {
        if self.is_held_by(owner) {
            self.lease = None;
            if let Some(message) = message {
                self.answered.entry(message).or_insert(owner);
            }
            return true;
        }
        // If its first packet was lost, nobody can tell whether the lease was released or had
        // expired. The answer is `released` then, unless somebody else holds the session.
        self.lease.is_none() && message.is_none_or(|message| self.answered.contains_key(&message))
    }
}
