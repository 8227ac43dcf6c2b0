//! The state of the queues, which a lock protects: one queue for each session, and the sessions
//! that are ready.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::known_leases::KnownLeases;
use super::turn::{EndedWait, Turn, Waiter};
use crate::lease::Holding;
use crate::store::SessionName;

pub(super) struct State<T> {
    pub queues: HashMap<SessionName, SessionQueue<T>>,
    /// Sessions that are ready for a turn, and since when the turn has been due.
    pub ready: VecDeque<(SessionName, Instant)>,
    /// Blocked sessions: since when their turn has been due, and when their lock is checked again.
    pub parked: VecDeque<(SessionName, Instant, Instant)>,
    /// The blocked session that is ready or has a turn. There is one at a time, because a turn may
    /// wait for a lock that the check does not show.
    pub blocked_turn: Option<SessionName>,
    /// The blocked sessions, and until when each is blocked.
    pub blocked: HashMap<SessionName, Instant>,
    /// How many acquires are in the queues.
    pub queued: usize,
    /// Whether the queues are closed, because the service stops.
    pub is_closed: bool,
    pub known_leases: KnownLeases,
    /// When another program's lock last blocked a turn.
    pub blocked_at: Option<Instant>,
}

/// The queue of one session.
pub(super) struct SessionQueue<T> {
    /// Turns that go before the acquires, and since when each has been due.
    pub urgent: VecDeque<(Turn<T>, Instant)>,
    pub waiters: VecDeque<Waiter<T>>,
    pub progress: Progress,
    pub last_read: Option<LastRead>,
}

/// The holder of the session when its row was last read.
pub(super) struct LastRead {
    /// When the turn that read the row began.
    pub began: Instant,
    pub holding: Holding,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Progress {
    Idle,
    /// The session is in `ready` or `parked`.
    Ready,
    /// A worker has taken a turn.
    Working,
    /// A worker has taken a turn, and another turn must follow.
    WorkingThenReady,
}

impl<T> Default for SessionQueue<T> {
    fn default() -> Self {
        Self {
            urgent: VecDeque::new(),
            waiters: VecDeque::new(),
            progress: Progress::Idle,
            last_read: None,
        }
    }
}

impl<T> SessionQueue<T> {
    /// The number of acquires that may wait. The others stay in the queue only until the next turn.
    pub fn count_waiting(&self, now: Instant) -> usize {
        self.waiters.iter().filter(|waiter| waiter.until > now).count()
    }

    /// Takes out the waiters for which `is_meant` is true.
    pub fn extract(&mut self, is_meant: impl FnMut(&Waiter<T>) -> bool) -> Vec<Waiter<T>> {
        let (meant, others) = std::mem::take(&mut self.waiters).into_iter().partition(is_meant);
        self.waiters = others;
        VecDeque::into(meant)
    }
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            queues: HashMap::new(),
            ready: VecDeque::new(),
            parked: VecDeque::new(),
            blocked_turn: None,
            blocked: HashMap::new(),
            queued: 0,
            is_closed: false,
            known_leases: KnownLeases::default(),
            blocked_at: None,
        }
    }
}

impl<T> State<T> {
    pub fn queue(&mut self, name: &SessionName) -> &mut SessionQueue<T> {
        if !self.queues.contains_key(name) {
            self.queues.insert(name.clone(), SessionQueue::default());
        }
        self.queues.get_mut(name).expect("the session has a queue")
    }

    pub fn remove_if_empty(&mut self, name: &SessionName) {
        let queue = self.queue(name);
        if queue.progress == Progress::Idle && queue.urgent.is_empty() && queue.waiters.is_empty() {
            self.queues.remove(name);
        }
    }

    /// Takes out the waiters whose wait is over and who came before the holder was read.
    pub fn end_waits(&mut self, name: &SessionName, now: Instant) -> Vec<EndedWait<T>> {
        let queue = self.queue(name);
        let Some(LastRead { began, holding }) = &queue.last_read else {
            return Vec::new();
        };
        if holding.expires <= now {
            // The next turn will show who holds the session.
            return Vec::new();
        }
        let (began, holding) = (*began, holding.clone());
        let over = queue.extract(|waiter| waiter.until <= now && waiter.arrived <= began);
        let waiters = queue.count_waiting(now);
        self.queued -= over.len();
        let ended =
            over.into_iter().map(|waiter| EndedWait { waiter, holding: holding.clone(), waiters });
        ended.collect()
    }
}
