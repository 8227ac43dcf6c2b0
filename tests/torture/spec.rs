//! What one session does when one thing happens after the other: the sequential specification, a
//! lock that expires and remembers the messages that were answered.
//!
//! No server is mentioned: which one answered must not matter.

use std::cell::Cell;
use std::collections::BTreeMap;

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
    /// The holder was granted by a request of an unknown outcome, which nothing has shown yet.
    is_unseen: bool,
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
    Grant { owner: Owner, fencing_token: Option<u64>, message: Option<Message> },
    Held(Option<Owner>),
    /// An acquire for a message that was answered.
    Answered(Message),
    Renew(Owner),
    /// A renew, a commit or a release whose lease is over.
    Lost { owner: Owner, message: Option<Message> },
    Commit { owner: Owner, message: Message },
    /// A commit of a message that somebody else committed.
    CommittedByOther { owner: Owner, message: Message },
    Release { owner: Owner, message: Option<Message> },
    /// Nobody asks for it: time passes.
    Expire { owner: Owner, fencing_token: Option<u64> },
    /// A commit that may have taken effect before the first operation.
    Record { owner: Owner, message: Message },
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub action: Action,
    /// Otherwise it may as well never happen.
    pub must_happen: bool,
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

impl Operation {
    fn next(&self, state: &State) -> Option<State> {
        if state.has_ended {
            return Some(state.clone());
        }
        let next = self.action.next(state)?;
        // If it may as well not happen, it need not happen where it changes nothing.
        (self.must_happen || next != *state).then_some(next)
    }
}

impl Action {
    /// The state after it, if it is possible.
    fn next(&self, state: &State) -> Option<State> {
        // A grant that nobody knows of makes a difference only to an operation that sees it. So it
        // happens right before one, which saves the search most of its work.
        let may_see = match self {
            Self::Held(_) | Self::End => true,
            Self::Grant { owner, fencing_token, .. } => {
                fencing_token.is_some() && state.holder == Some(*owner)
            }
            _ => false,
        };
        if state.is_unseen && !may_see {
            return None;
        }
        let mut next = State { is_unseen: false, ..state.clone() };
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
            Some(_) => self.fencing_token == fencing_token || (self.fencing_token.is_none() && is_new),
        };
        if fencing_token.is_none() {
            self.is_unseen = self.holder.is_none();
        }
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
