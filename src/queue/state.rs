//! The state of the queues, which a lock protects: one queue for each session, and the sessions
//! that are ready.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::known_leases::KnownLeases;
use super::turn::{Kind, Ready, Refused, Turn, Waiter};
use crate::lease::Holding;
use crate::store::{FirstPacket, SessionName};

/// How long a session stays blocked after another program was last found to hold a lock on its row.
/// In this time, each turn begins with a check of the lock, and not with a wait of a second.
const BLOCKED_FOR: Duration = Duration::from_secs(10);

/// Interval between checks of a blocked session's lock.
const BLOCKED_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long all acquires begin with a read after another program's lock has blocked a turn. On
/// MySQL, an INSERT that waits for a row's lock also locks the gap before the row in the index,
/// where other sessions would be inserted. A read waits for no lock, and the row that it finds is
/// replaced by its primary key, which locks no gap.
const READ_FIRST_FOR: Duration = Duration::from_secs(60);

pub(super) struct State<T> {
    pub queues: HashMap<SessionName, SessionQueue<T>>,
    /// Sessions that are ready for a turn, and since when the turn has been due.
    pub ready: VecDeque<(SessionName, Instant)>,
    /// Blocked sessions: since when their turn has been due, and when their lock is checked again.
    pub parked: VecDeque<(SessionName, Instant, Instant)>,
    /// The blocked session that is ready or has a turn. There is one at a time, because a turn may
    /// wait for a lock that the check does not show.
    blocked_turn: Option<SessionName>,
    /// The blocked sessions, and until when each is blocked.
    blocked: HashMap<SessionName, Instant>,
    /// How many acquires are in the queues.
    pub queued: usize,
    /// Whether the queues are closed, because the service stops.
    pub is_closed: bool,
    pub known_leases: KnownLeases,
    /// When another program's lock last blocked a turn.
    blocked_at: Option<Instant>,
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

/// What follows a turn.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum AfterTurn {
    /// Another turn, if an operation needs one.
    Turn,
    /// Nothing, until the session becomes ready again.
    Rest,
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
    pub fn waiting(&self, now: Instant) -> usize {
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

    /// Puts a waiter into its session's queue, in the order of arrival.
    pub fn enqueue(&mut self, name: &SessionName, mut waiter: Waiter<T>) {
        if self.is_closed {
            waiter.until = waiter.arrived;
        }
        let waiters = &mut self.queue(name).waiters;
        let place = waiters.partition_point(|other| other.arrived <= waiter.arrived);
        waiters.insert(place, waiter);
        self.queued += 1;
    }

    pub fn make_ready(&mut self, name: &SessionName, since: Instant) {
        let queue = self.queue(name);
        match queue.progress {
            Progress::Idle => {
                queue.progress = Progress::Ready;
                if self.is_blocked(name) {
                    self.parked.push_back((name.clone(), since, Instant::now()));
                    self.unpark(Instant::now());
                } else {
                    self.ready.push_back((name.clone(), since));
                }
            }
            Progress::Working => queue.progress = Progress::WorkingThenReady,
            Progress::Ready | Progress::WorkingThenReady => {}
        }
    }

    /// Sets a blocked session aside until its lock is checked again.
    pub fn park(&mut self, name: &SessionName, since: Instant) {
        let now = Instant::now();
        self.blocked_at = Some(now);
        self.blocked.retain(|_, until| *until > now);
        self.blocked.insert(name.clone(), now + BLOCKED_FOR);
        self.queue(name).progress = Progress::Ready;
        self.parked.push_back((name.clone(), since, now + BLOCKED_RETRY_INTERVAL));
    }

    /// Makes the next parked session ready whose lock must be checked again, if no other blocked
    /// session has a turn.
    pub fn unpark(&mut self, now: Instant) {
        if self.blocked_turn.is_some() {
            return;
        }
        let due = self.parked.iter().position(|(_, _, retry_at)| *retry_at <= now);
        if let Some((name, since, _)) = due.and_then(|at| self.parked.remove(at)) {
            self.blocked_turn = Some(name.clone());
            self.ready.push_back((name, since));
        }
    }

    /// Ends the turn of a blocked session.
    pub fn end_blocked_turn(&mut self) {
        self.blocked_turn = None;
        self.unpark(Instant::now());
    }

    /// Whether this session, which is ready, is the blocked session that has the turn.
    pub fn is_blocked_turn(&self, name: &SessionName) -> bool {
        self.blocked_turn.as_ref() == Some(name)
    }

    pub fn unblock(&mut self, name: &SessionName) {
        self.blocked.remove(name);
    }

    fn is_blocked(&self, name: &SessionName) -> bool {
        // The map is nearly always empty, which is cheaper to check than a name.
        !self.blocked.is_empty()
            && self.blocked.get(name).is_some_and(|until| *until > Instant::now())
    }

    /// The kind of the next turn of a session that is ready, and since when the turn has been due.
    pub fn front(&mut self, name: &SessionName, since: Instant) -> (Kind, Instant) {
        match self.queue(name).urgent.front() {
            Some((_, since)) => (Kind::Other, *since),
            None => (Kind::Acquire, since),
        }
    }

    pub fn begin_turn(&mut self, name: SessionName, since: Instant) -> Option<Ready<T>> {
        let queue = self.queue(&name);
        let urgent = queue.urgent.pop_front();
        let acquire = || {
            let waiter = queue.waiters.pop_front()?;
            // An acquire whose wait is over is late from then on.
            let since = since.min(waiter.until);
            Some((Turn::Acquire(waiter), since))
        };
        let Some((turn, since)) = urgent.or_else(acquire) else {
            queue.progress = Progress::Idle;
            self.remove_if_empty(&name);
            if self.is_blocked_turn(&name) {
                self.end_blocked_turn();
            }
            return None;
        };
        queue.progress = Progress::Working;
        if matches!(turn, Turn::Acquire(_)) {
            self.queued -= 1;
        }
        let reads_first = self.blocked_at.is_some_and(|at| at.elapsed() < READ_FIRST_FOR);
        let first_packet =
            if reads_first { FirstPacket::Read } else { self.known_leases.first_packet(&name) };
        let is_blocked = self.is_blocked_turn(&name);
        Some(Ready { name, turn, since, first_packet, is_blocked })
    }

    pub fn end_turn(&mut self, name: &SessionName, next: AfterTurn) {
        let queue = self.queue(name);
        let again = queue.progress == Progress::WorkingThenReady || next == AfterTurn::Turn;
        let has_turns = !queue.urgent.is_empty() || !queue.waiters.is_empty();
        queue.progress = Progress::Idle;
        if again && has_turns {
            self.make_ready(name, Instant::now());
        } else {
            self.remove_if_empty(name);
        }
    }

    pub fn remove_if_empty(&mut self, name: &SessionName) {
        let queue = self.queue(name);
        if queue.progress == Progress::Idle && queue.urgent.is_empty() && queue.waiters.is_empty() {
            self.queues.remove(name);
        }
    }

    /// Takes out the waiters whose wait is over and who came before the holder was read.
    pub fn refuse(&mut self, name: &SessionName, now: Instant) -> Vec<Refused<T>> {
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
        let waiters = queue.waiting(now);
        self.queued -= over.len();
        let refused =
            over.into_iter().map(|waiter| Refused { waiter, holding: holding.clone(), waiters });
        refused.collect()
    }
}
