//! From requests to answers: a request becomes an operation, takes its turn in its session's queue, and
//! runs on the store in a batch with the others that are ready; its reply is called with the outcome.

mod turns;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::lease::{
    Acquire, Committed, Forced, Holding, Id, Lease, OwnerToken, Record, Released, Renewed, Session,
};
use crate::logging;
use crate::metrics::METRICS;
use crate::queue::{Batching, Queues, Ready, Requester, Turn, Waiter};
use crate::store::{Answer, FirstPacket, Locks, Operation, Page, SessionName, Store, StoreError};

/// Operations that go to the database in one transaction. More than this gain little, and make all
/// of them wait for one that fails.
pub const BATCH_MAX: usize = 64;

/// A turn that nobody could begin for so long is refused without a try: a try may take 7 s more, and
/// everything ends within 10 s, however slow the database and however many ask at once.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a request is answered with once the service stops.
pub const STOPPING: &str = "the server is stopping; repeat the same request";

/// What came of a request.
pub enum Outcome {
    Granted(Lease),
    /// Somebody else holds the session, and so many wait for it.
    Held(Holding, usize),
    /// The message of an acquire is answered.
    Duplicate(Record),
    Renew(Renewed),
    Commit(Committed),
    Release(Released),
    Force(Forced),
    /// The database did not answer, or not in time. A requester whose lease may have been written is
    /// given its owner token, to ask again with.
    Unavailable {
        cause: String,
        owner_token: Option<OwnerToken>,
    },
    Bug,
    /// The request must be changed: why.
    Invalid(String),
    /// The service stops.
    Stopping,
}

impl From<&StoreError> for Outcome {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Internal => Self::Bug,
            StoreError::NotStorable(why) => Self::Invalid(why.clone()),
            error => Self::Unavailable { cause: error.to_string(), owner_token: None },
        }
    }
}

/// How an outcome gets to whoever asked.
pub type Reply = Box<dyn FnOnce(&Operation, Outcome) + Send>;

/// The service behind the HTTP interface.
pub struct Service {
    store: Store,
    queues: Queues<Pending>,
    is_closed: AtomicBool,
}

/// An operation that waits for its turn, and how to answer it.
struct Pending {
    name: SessionName,
    operation: Operation,
    reply: Reply,
}

impl Pending {
    fn answer(self, outcome: Outcome) {
        (self.reply)(&self.operation, outcome);
    }
}

impl Service {
    /// The service of this store.
    pub fn new(store: Store) -> Self {
        Self { store, queues: Queues::default(), is_closed: AtomicBool::new(false) }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the service has stopped.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Takes an acquire, which waits for at most `wait` if the session is held.
    pub fn acquire(&self, acquire: Acquire, wait: Duration, arrived: Instant, reply: Reply) {
        let origin = acquire.origin;
        let requester = Requester {
            owner_token: acquire.owner_token.clone(),
            message_id: acquire.message_id.clone(),
        };
        let operation = Operation::Acquire(acquire, FirstPacket::Write);
        let Some(pending) = self.pending(operation, reply) else { return };
        let name = pending.name.clone();
        let waiter = Waiter { requester, arrived, until: arrived + wait, pending };
        self.queues.join(&name, waiter, origin);
    }

    /// Takes any other operation on one session.
    pub fn submit(&self, operation: Operation, arrived: Instant, reply: Reply) {
        if let Some(pending) = self.pending(operation, reply) {
            self.queues.submit(&pending.name.clone(), pending, arrived);
        }
    }

    /// The operation with its session's name and its reply. `None` if it is answered already: the service
    /// has stopped, or there is no name.
    fn pending(&self, operation: Operation, reply: Reply) -> Option<Pending> {
        if self.is_closed() {
            reply(&operation, Outcome::Stopping);
            return None;
        }
        match self.store.session_name(operation.session()) {
            Ok(name) => Some(Pending { name, operation, reply }),
            Err(error) => {
                reply(&operation, Outcome::from(&error));
                None
            }
        }
    }

    /// Runs the turns that are ready as one batch; whether there were any.
    pub fn work(&self, batching: Batching) -> bool {
        let ready = self.queues.next(batching, BATCH_MAX);
        if ready.is_empty() {
            return false;
        }
        let began = Instant::now();
        let in_time = |ready: &Ready<_>| ready.since.elapsed() < QUEUE_TIMEOUT;
        let had_blocked = ready.iter().any(|ready| ready.is_blocked);
        let (ready, late): (Vec<_>, Vec<_>) = ready.into_iter().partition(in_time);
        for Ready { name, turn, is_blocked, .. } in late {
            if is_blocked {
                self.finish(&name, turn, began, Err(StoreError::RowLocked));
            } else {
                self.queues.finish_unchanged(&name);
                turn.into_pending().answer(Outcome::from(&too_slow()));
            }
        }
        let is_blocked = ready.first().is_some_and(|ready| ready.is_blocked);
        self.run_batch(ready, if is_blocked { Locks::Check } else { Locks::Wait });
        if had_blocked {
            self.queues.end_blocked_turn();
        }
        true
    }

    fn run_batch(&self, turns: Vec<Ready<Pending>>, locks: Locks) {
        if turns.is_empty() {
            return;
        }
        let began = Instant::now();
        let operations: Vec<_> = turns.iter().map(operation).collect();
        #[allow(clippy::cast_precision_loss)] // a few dozen at most
        METRICS.batch_size.observe(operations.len() as f64);
        let answers = self.run(&operations, locks);
        let _lines = logging::Batch::begin();
        for (Ready { name, turn, since, .. }, answer) in turns.into_iter().zip(answers) {
            let turn = if let Err(StoreError::RowLocked) = answer {
                self.queues.park(&name, turn, since)
            } else {
                if locks == Locks::Check {
                    self.queues.unblock(&name);
                }
                Some(turn)
            };
            if let Some(turn) = turn {
                self.finish(&name, turn, began, answer);
            }
        }
    }

    fn run(&self, operations: &[Operation], locks: Locks) -> Vec<Result<Answer, StoreError>> {
        // One request's bug must take neither a worker nor a session away from all others.
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.store.run(operations, locks)
        }));
        let internal = |_| operations.iter().map(|_| Err(StoreError::Internal)).collect();
        ran.unwrap_or_else(internal)
    }

    /// Who holds a session, and how many wait for it.
    pub fn read(&self, session: &Session) -> Result<(Option<Holding>, usize), StoreError> {
        let answer = self.run(&[Operation::Read(session.clone())], Locks::Wait).pop();
        match answer.transpose()? {
            Some(Answer::Read(holding)) => Ok((holding, self.waiters(session))),
            _ => Err(StoreError::Internal),
        }
    }

    /// A page of the leases that hold now.
    pub fn list(&self, device: Option<&Id>, after: u64, limit: u64) -> Result<Page, StoreError> {
        self.store.list(device, after, limit)
    }

    /// How many wait for a session.
    pub fn waiters(&self, session: &Session) -> usize {
        self.store.session_name(session).map_or(0, |name| self.queues.waiters(&name))
    }

    /// How many wait for any session.
    pub fn waiting(&self) -> usize {
        self.queues.waiting()
    }

    /// Whether there is a turn for a worker.
    pub fn is_ready(&self) -> bool {
        self.queues.is_ready()
    }

    /// Refuses waiters whose time is over; whether there is a turn for a worker now.
    pub fn tick(&self) -> bool {
        self.refuse(self.queues.tick(Instant::now()));
        self.queues.is_ready()
    }

    /// Checks whether rows that are waited for changed; whether there is a turn for a worker now.
    pub fn watch(&self) -> bool {
        // Without the database nobody can be granted anything; waits still end in time.
        if let Ok(changed) = self.store.changed(&self.queues.watched()) {
            self.queues.rows_changed(&changed);
        }
        self.queues.is_ready()
    }

    /// Blocks until somebody waits, at most `timeout`; whether anybody does.
    pub fn wait_for_waiters(&self, timeout: Duration) -> bool {
        self.queues.wait_for_waiters(timeout)
    }

    /// Refuses everything that is not begun, to be asked of the next server. Called again at the very
    /// end, for requests that were being taken meanwhile.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        for pending in self.queues.close() {
            pending.answer(Outcome::Stopping);
        }
    }
}

/// What the store does in this turn.
fn operation(ready: &Ready<Pending>) -> Operation {
    let finds_only = matches!(ready.turn, Turn::FindOwn(_) | Turn::Refuse(_));
    match ready.turn.pending().operation.clone() {
        Operation::Acquire(acquire, _) if finds_only => Operation::Find(acquire),
        Operation::Acquire(acquire, _) => Operation::Acquire(acquire, ready.first_packet),
        other => other,
    }
}

/// The error of a turn that nobody could begin in time.
pub fn too_slow() -> StoreError {
    StoreError::Unavailable("it answers too slowly".to_owned())
}
