//! What one session does when one thing happens after the other: the sequential specification, a
//! lock that expires and remembers the messages that were answered.
//!
//! No server is mentioned: which one answered must not matter.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::iter;
use std::rc::Rc;

use todc_utils::specifications::Specification;

/// Far more than a piece of a history needs, in some seconds.
pub const STEPS_MOST: u64 = 1_000_000;

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

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub holder: Option<Owner>,
    /// The holder's, unless no answer has named it.
    pub fencing_token: Option<u64>,
    /// The highest that was answered.
    pub highest: u64,
    /// The messages that were answered, and by whom.
    pub answered: BTreeMap<Message, Owner>,
    /// The state before the last operation, if that need not have happened, or not yet, and no
    /// answer has shown it.
    unseen: Option<Box<State>>,
    /// The latest call so far.
    called_us: u64,
    /// The history is over. What is left has not happened.
    has_ended: bool,
}

#[derive(Clone, Debug)]
pub enum Action {
    /// The first operation: what was before.
    Begin(State),
    /// The last.
    End,
    /// Without a fencing token, the outcome is unknown.
    Grant {
        owner: Owner,
        fencing_token: Option<u64>,
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
    /// Nobody asks for it: time passes. It may happen first, and must happen later.
    Expire {
        owner: Owner,
        fencing_token: Option<u64>,
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
    /// Otherwise it may as well never happen.
    pub must_happen: bool,
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
        (next.is_some(), next.unwrap_or_else(|| state.clone()))
    }
}

impl From<Action> for Operation {
    fn from(action: Action) -> Self {
        Self { action, called_us: 0, must_happen: true, shown_us: Rc::default() }
    }
}

impl Operation {
    fn next(&self, state: &State) -> Option<State> {
        if state.has_ended {
            return Some(state.clone());
        }
        let mut next = self.action.next(state)?;
        next.called_us = state.called_us.max(self.called_us);
        if self.must_happen {
            // A grant, a release or an expiry that may as well happen later, or never, does so until
            // an answer would be impossible without it. This saves the search nearly all of its
            // work.
            let is_shown = |before: &State| self.action.next(before).is_none();
            let mut befores = iter::successors(state.unseen.as_deref(), |s| s.unseen.as_deref());
            let is_needed = matches!(self.action, Action::End) || befores.all(is_shown);
            return is_needed.then_some(next);
        }
        if matches!(self.action, Action::Commit { .. } | Action::Record { .. }) {
            // It cannot happen later if the lease ends.
            return (state.unseen.is_none() && next.answered != state.answered).then_some(next);
        }
        // Of two that follow each other unseen, the first frees the session for the second.
        let is_possible = match self.action {
            Action::Grant { .. } => {
                let is_near = |us: &(u64, u64)| us.0 <= next.called_us && next.called_us <= us.1;
                state.holder.is_none() && self.shown_us.iter().any(is_near)
            }
            _ => state.unseen.is_none() && next.holder != state.holder,
        };
        let unseen = Some(Box::new(state.clone()));
        is_possible.then_some(State { unseen, ..next })
    }
}

impl Action {
    /// The state after it, if it is possible.
    fn next(&self, state: &State) -> Option<State> {
        let mut next = State { unseen: None, ..state.clone() };
        let holds = |owner: &Owner| state.holder == Some(*owner);
        let is_possible = match self {
            Self::Begin(begin) => {
                next = begin.clone();
                true
            }
            Self::End => {
                next.has_ended = true;
                true
            }
            Self::Grant { owner, fencing_token, message } => {
                message.is_none_or(|message| !state.answered.contains_key(&message))
                    && next.grant(*owner, *fencing_token)
            }
            Self::Held(owner) => state.holder.is_some() && state.holder != *owner,
            Self::Answered(message) => state.answered.contains_key(message),
            Self::Renew(owner) => holds(owner),
            Self::Lost { owner, message } => {
                !holds(owner)
                    && message.is_none_or(|message| state.answered.get(&message) != Some(owner))
            }
            Self::Commit { owner, message } => next.commit(*owner, *message),
            Self::CommittedByOther { owner, message } => {
                state.answered.get(message).is_some_and(|by| by != owner)
            }
            Self::Release { owner, message } => next.release(*owner, *message),
            Self::Expire { owner, fencing_token } => next.expire(*owner, *fencing_token),
            Self::Record { owner, message } => {
                next.answered.entry(*message).or_insert(*owner);
                true
            }
        };
        is_possible.then_some(next)
    }
}

impl State {
    pub fn of(
        holder: Option<Owner>,
        fencing_token: Option<u64>,
        highest: u64,
        answered: BTreeMap<Message, Owner>,
    ) -> Self {
        Self { holder, fencing_token, highest, answered, ..Self::default() }
    }

    // Each of these returns whether it is possible.

    fn grant(&mut self, owner: Owner, fencing_token: Option<u64>) -> bool {
        let is_new = fencing_token.is_none_or(|token| token > self.highest);
        let is_possible = match self.holder {
            None => is_new,
            Some(holder) if holder != owner => false,
            // Again; the first answer may have been lost.
            Some(_) => {
                self.fencing_token == fencing_token || (self.fencing_token.is_none() && is_new)
            }
        };
        self.holder = Some(owner);
        self.fencing_token = fencing_token;
        self.highest = self.highest.max(fencing_token.unwrap_or(0));
        is_possible
    }

    fn commit(&mut self, owner: Owner, message: Message) -> bool {
        let by = self.answered.insert(message, owner);
        match by {
            None => self.holder == Some(owner),
            // Again, also after its lease.
            Some(by) => by == owner || by == SOMEBODY,
        }
    }

    fn release(&mut self, owner: Owner, message: Option<Message>) -> bool {
        match self.holder {
            Some(holder) if holder == owner => {
                self.holder = None;
                self.fencing_token = None;
                if let Some(message) = message {
                    self.answered.entry(message).or_insert(owner);
                }
                true
            }
            Some(_) => false,
            // If its first packet was lost, nobody can tell whether the lease was released or had
            // expired. The answer is `released` then.
            None => message.is_none_or(|message| self.answered.contains_key(&message)),
        }
    }

    fn expire(&mut self, owner: Owner, fencing_token: Option<u64>) -> bool {
        if self.holder == Some(owner) && self.fencing_token == fencing_token {
            self.holder = None;
            self.fencing_token = None;
            return true;
        }
        // It was released, if it was granted at all yet.
        fencing_token.is_some_and(|token| token <= self.highest)
    }
}
