//! Turns requests into answers. A request becomes an operation, takes its turn in its session's
//! queue, and runs on the store in a batch with the others that are ready. Its reply is called with
//! the outcome.

mod turns;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::lease::{
    Acquire, Committed, Forced, Holding, Lease, Record, Released, Renewed, Session,
};
use crate::logging;
use crate::metrics::METRICS;
use crate::queue::{QUEUE_TIMEOUT, Queues, Ready, Requester, Turn, Waiter};
use crate::store::{
    Answer, BATCH_MAX, FirstPacket, Locks, Operation, SessionName, Store, StoreError,
};

/// The outcome of a request.
pub enum Outcome {
    Granted(Lease),
    /// The session is held; the number is that of the waiters.
    Held(Holding, usize),
    /// The message of an acquire is answered.
    Duplicate(Record),
    Renew(Renewed),
    Commit(Committed),
    Release(Released),
    Force(Forced),
    /// There is no answer.
    Failed(StoreError),
    /// The service stops.
    Stopping,
}

/// Sends an outcome to the requester.
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
    /// Creates the service for a store.
    pub fn new(store: Store) -> Self {
        Self { store, queues: Queues::default(), is_closed: AtomicBool::new(false) }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the service is stopping. Then no operation begins.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Accepts an acquire, which waits for at most `wait` if the session is held.
    pub fn acquire(&self, acquire: Acquire, wait: Duration, arrived: Instant, reply: Reply) {
        let origin = acquire.origin;
        let requester = Requester {
            owner_token: acquire.owner_token.clone(),
            message_id: acquire.message_id.clone(),
        };
        // The queue decides how the acquire begins (see `operation`).
        let operation = Operation::Acquire(acquire, FirstPacket::Write);
        let Some(pending) = self.pending(operation, arrived, reply) else { return };
        let name = pending.name.clone();
        let waiter = Waiter { requester, arrived, until: arrived + wait, pending };
        self.queues.join(&name, waiter, origin);
    }

    /// Accepts any other operation on one session.
    pub fn submit(&self, operation: Operation, arrived: Instant, reply: Reply) {
        if let Some(pending) = self.pending(operation, arrived, reply) {
            self.queues.submit(&pending.name.clone(), pending, arrived);
        }
    }

    /// Adds the session's name and the reply to an operation. Returns `None` if the operation is
    /// already answered, because the service stops, the request is late, or the session has no
    /// name.
    fn pending(&self, operation: Operation, arrived: Instant, reply: Reply) -> Option<Pending> {
        if self.is_closed() {
            reply(&operation, Outcome::Stopping);
            return None;
        }
        if arrived.elapsed() >= QUEUE_TIMEOUT {
            reply(&operation, Outcome::Failed(too_slow()));
            return None;
        }
        match self.store.session_name(operation.session()) {
            Ok(name) => Some(Pending { name, operation, reply }),
            Err(error) => {
                reply(&operation, Outcome::Failed(error));
                None
            }
        }
    }

    /// Runs the turns that are ready as one batch. Returns whether there were any.
    pub fn work(&self) -> bool {
        let ready = self.queues.next(BATCH_MAX);
        if ready.is_empty() {
            return false;
        }
        let began = Instant::now();
        let in_time = |ready: &Ready<_>| ready.since.elapsed() < QUEUE_TIMEOUT;
        // The turn of a blocked session is the only one.
        let blocked = ready.iter().find(|ready| ready.is_blocked).map(|ready| ready.name.clone());
        let (ready, late): (Vec<_>, Vec<_>) = ready.into_iter().partition(in_time);
        for Ready { name, turn, .. } in late {
            if blocked.is_some() {
                self.finish(&name, turn, began, Err(StoreError::RowLocked));
            } else {
                self.queues.finish_unchanged(&name);
                turn.into_pending().answer(Outcome::Failed(too_slow()));
            }
        }
        self.run_batch(ready, if blocked.is_some() { Locks::Check } else { Locks::Wait });
        if let Some(name) = blocked {
            self.queues.end_blocked_turn(&name);
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
        // A bug that one request triggers must neither end a worker nor block a session.
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.store.run(operations, locks)
        }));
        let internal = |_| operations.iter().map(|_| Err(StoreError::Internal)).collect();
        ran.unwrap_or_else(internal)
    }

    /// The holder of a session, and the number of its waiters.
    pub fn read(&self, session: &Session) -> Result<(Option<Holding>, usize), StoreError> {
        let answer = self.run(&[Operation::Read(session.clone())], Locks::Wait).pop();
        match answer.transpose()? {
            Some(Answer::Read(holding)) => Ok((holding, self.waiters(session))),
            _ => Err(StoreError::Internal),
        }
    }

    /// The number of waiters for a session.
    pub fn waiters(&self, session: &Session) -> usize {
        self.store.session_name(session).map_or(0, |name| self.queues.waiters(&name))
    }

    /// The number of acquires in all queues.
    pub fn queued(&self) -> usize {
        self.queues.queued()
    }

    /// Whether a turn is ready.
    pub fn is_ready(&self) -> bool {
        self.queues.is_ready()
    }

    /// Ends waits that are over, and makes sessions ready whose lease has expired. Returns whether a
    /// turn is ready.
    pub fn tick(&self) -> bool {
        self.answer_held(self.queues.tick(Instant::now()));
        self.queues.is_ready()
    }

    /// Checks whether rows that waiters wait for have changed. Returns whether a turn is ready.
    pub fn watch(&self) -> bool {
        // Without the database, no lease can be granted, and waits still end in time.
        if let Ok(changed) = self.store.changed(&self.queues.watched()) {
            self.queues.rows_changed(&changed);
        }
        self.queues.is_ready()
    }

    /// Blocks until an acquire waits, a session is parked, or the service stops.
    pub fn wait_for_waiters(&self) {
        self.queues.wait_for_waiters();
    }

    /// Refuses every operation that has not begun, so that its client repeats it at the next
    /// server. Is called again at the end of the shutdown, for requests that were accepted in the
    /// meantime.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        for pending in self.queues.close() {
            pending.answer(Outcome::Stopping);
        }
    }
}

/// The store's operation for a turn.
fn operation(ready: &Ready<Pending>) -> Operation {
    let finds_only = matches!(ready.turn, Turn::Find(_) | Turn::CheckMessage(_));
    match ready.turn.pending().operation.clone() {
        Operation::Acquire(acquire, _) if finds_only => Operation::Find(acquire),
        Operation::Acquire(acquire, _) => Operation::Acquire(acquire, ready.first_packet),
        other => other,
    }
}

/// The error of a turn that no worker could begin in time.
pub fn too_slow() -> StoreError {
    StoreError::Unavailable("it answers too slowly".to_owned())
}
