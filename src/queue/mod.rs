//! Who stands in line for which session: first come, first served, without a thread or a database
//! connection for those who stand.
//!
//! Everything that is done to a session passes through its [`Lines`], one thing at a time. Releases
//! and renews go first, in their order. Acquires stand in line in the order of their arrival,
//! whether they may wait or not, so nobody overtakes: when it is the line's turn, its first tries
//! to acquire, and what that shows of the session is the answer for all who have waited long
//! enough. A line gets its turn when somebody joins it, after a release, when the lease that was
//! seen expires, and when its row is found changed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lease::{Holding, MessageId, OwnerToken, RowVersion, TokenOrigin};
use crate::store::FirstPacket;

/// Most waiters of one server; whoever comes then is refused without waiting. Each has a
/// connection of its own, with a thread and two descriptors: half of the unit's 8,192.
const WAITERS_MAX: usize = 2_000;

/// A session whose row another program was seen to hold a lock on goes by the slow lane for so long:
/// each try takes a second of a worker's time, which is not to be that of others.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// After another program's lock was in the way, acquires begin with a look for so long: on MySQL, an INSERT
/// that waits for a row's lock bars the gap before it in the index, where other sessions would be inserted.
/// A look waits for nobody, and what it finds is replaced by its primary key, which bars no gap.
const CAUTIOUS_FOR: Duration = Duration::from_secs(60);

/// How long something may be left for the next worker because it is of the other kind; a batch takes
/// some milliseconds. On a database so slow that it is more, a wait of another batch could be too long.
const LEAVE_MAX: Duration = Duration::from_millis(100);

/// Sessions that are known to be held: far more than are held at once, in two or three megabytes.
const HELD_MAX: usize = 10_000;

/// Sessions whose lease has expired are dropped once in so long, if there is no room for another.
const HELD_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A session's name, the same for all its spellings.
pub type Name = (String, String);

/// Who waits, and what for. The same worker that asks again has the same claim.
#[derive(PartialEq)]
pub struct Claim {
    /// Whose lease it would be.
    pub owner_token: OwnerToken,
    /// The message that it would answer.
    pub message_id: Option<MessageId>,
}

/// Somebody in line: `T` is what is needed to serve and answer it.
pub struct Waiter<T> {
    pub claim: Claim,
    pub arrived: Instant,
    pub until: Instant,
    pub ticket: T,
}

impl<T> Waiter<T> {
    /// Whether it waits at all. Who does not has its answer from the next turn, and nobody needs to
    /// be woken to look after it: that would cost more than all else here.
    fn waits(&self) -> bool {
        self.until > self.arrived
    }
}

/// What is to be done next to a session.
pub enum Turn<T> {
    /// Something that does not stand in line.
    Direct(T),
    /// See whether it holds the session already, before it stands in line.
    Recall(Waiter<T>),
    /// See whether its message is answered, before it is refused.
    Refuse(Refused<T>),
    /// Acquire for the first in line.
    Acquire(Waiter<T>),
}

impl<T> Turn<T> {
    /// What is needed to answer it.
    pub fn into_ticket(self) -> T {
        match self {
            Self::Direct(ticket) => ticket,
            Self::Recall(waiter) | Self::Acquire(waiter) => waiter.ticket,
            Self::Refuse(refused) => refused.waiter.ticket,
        }
    }
}

/// A turn to take.
pub struct Ready<T> {
    pub name: Name,
    pub turn: Turn<T>,
    pub since: Instant,
    pub first_packet: FirstPacket,
}

/// What an operation did to a session's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Ended,
    Renewed(Instant),
    None,
}

/// What a worker takes of what is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// All of it, in one transaction.
    Everything,
    /// Acquires alone, or the rest alone, whichever is first, and what has waited for long. Each
    /// statement costs the database as much as a dozen rows, and one kind needs four instead of six.
    OneKind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Acquire,
    /// What does not stand in line, or not any more.
    Rest,
}

/// Somebody whose wait is over, and why.
pub struct Refused<T> {
    pub waiter: Waiter<T>,
    pub holding: Holding,
    pub waiters: usize,
}

/// Whether another program still holds a lock on a session's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLock {
    Held,
    Gone,
}

/// All lines of this server.
pub struct Lines<T> {
    state: Mutex<State<T>>,
    joined: Condvar,
    slow_ready: Arc<Condvar>,
}

struct State<T> {
    lines: HashMap<Name, Line<T>>,
    /// What is ready, and since when.
    ready: VecDeque<(Name, Instant)>,
    /// The same of what goes by the slow lane, and who waits for it.
    ready_slow: VecDeque<(Name, Instant)>,
    slow_ready: Arc<Condvar>,
    /// Sessions that go by the slow lane, and until when.
    slow: HashMap<Name, Instant>,
    waiting: usize,
    door: Door,
    held: Held,
    /// When another program's lock was in the way last.
    locked_at: Option<Instant>,
}

/// Sessions that were granted or found held here, as far as is known. It decides how an acquire
/// begins, and what the metrics say; never an answer.
#[derive(Default)]
struct Held {
    sessions: HashMap<Name, KnownLease>,
    swept_at: Option<Instant>,
}

struct KnownLease {
    expires: Instant,
    /// When it was granted, if that was here.
    granted_at: Option<Instant>,
}

impl Held {
    fn first_packet(&self, name: &Name) -> FirstPacket {
        match self.sessions.get(name) {
            Some(known) if known.expires > Instant::now() => FirstPacket::Look,
            _ => FirstPacket::Write,
        }
    }

    fn note(&mut self, name: &Name, expires: Instant, granted_at: Option<Instant>) {
        if let Some(known) = self.sessions.get_mut(name) {
            known.expires = expires;
            known.granted_at = granted_at.or(known.granted_at);
            return;
        }
        let is_full = self.sessions.len() >= HELD_MAX;
        if is_full && self.swept_at.is_none_or(|at| at.elapsed() > HELD_SWEEP_INTERVAL) {
            let now = Instant::now();
            self.sessions.retain(|_, known| known.expires > now);
            self.swept_at = Some(now);
        }
        if self.sessions.len() < HELD_MAX {
            let known = KnownLease { expires, granted_at };
            self.sessions.insert(name.clone(), known);
        }
    }
}

#[derive(PartialEq)]
enum Door {
    Open,
    /// The service stops: nobody waits any more.
    Closed,
}

struct Line<T> {
    /// What does not stand in line, and since when somebody waits for it.
    direct: VecDeque<(Turn<T>, Instant)>,
    waiters: VecDeque<Waiter<T>>,
    turn: TurnState,
    seen: Option<Look>,
}

/// What the last look at the session showed.
struct Look {
    began: Instant,
    holding: Holding,
}

#[derive(Clone, Copy, PartialEq)]
enum TurnState {
    Idle,
    Ready,
    Working,
    /// A worker is at it, and it must have another turn afterwards.
    WorkingThenReady,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        let slow_ready = Arc::new(Condvar::new());
        let state = State {
            lines: HashMap::new(),
            ready: VecDeque::new(),
            ready_slow: VecDeque::new(),
            slow_ready: Arc::clone(&slow_ready),
            slow: HashMap::new(),
            waiting: 0,
            door: Door::Open,
            held: Held::default(),
            locked_at: None,
        };
        Self { state: Mutex::new(state), joined: Condvar::new(), slow_ready }
    }
}

impl<T> Lines<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Whoever panicked did so outside of the few lines that hold the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has something done to a session that does not stand in line.
    pub fn submit(&self, name: &Name, ticket: T, arrived: Instant) {
        let mut state = self.lock();
        let direct = &mut state.line(name).direct;
        direct.push_back((Turn::Direct(ticket), arrived));
        state.make_ready(name, arrived);
    }

    /// Joins the end of a session's line. Who brings a token of its own may hold the session
    /// already, and is then not to stand behind those who wait for it.
    pub fn join(&self, name: &Name, mut waiter: Waiter<T>, token: TokenOrigin) {
        let mut state = self.lock();
        if state.waiting >= WAITERS_MAX {
            waiter.until = waiter.arrived;
        }
        let line = state.line(name);
        let (arrived, waits) = (waiter.arrived, waiter.waits());
        let is_alone = line.waiters.is_empty() && line.turn == TurnState::Idle;
        if token == TokenOrigin::Callers && !is_alone {
            line.direct.push_back((Turn::Recall(waiter), arrived));
        } else {
            state.stand(name, waiter);
        }
        state.make_ready(name, arrived);
        drop(state);
        if waits {
            self.joined.notify_all();
        }
    }

    /// What to do next, at most so many: nobody else gets the same session until its turn is
    /// reported to be over.
    pub fn next(&self, portion: Portion, limit: usize) -> Vec<Ready<T>> {
        let mut state = self.lock();
        let (mut batch_kind, mut turns, mut others) = (None, Vec::new(), VecDeque::new());
        while turns.len() < limit
            && let Some((name, since)) = state.ready.pop_front()
        {
            if state.is_slow(&name) {
                // It has become so since.
                state.push_slow(name, since);
                continue;
            }
            let (kind, waits_since) = state.front(&name, since);
            let is_other = batch_kind.is_some_and(|batch_kind| batch_kind != kind);
            if portion == Portion::OneKind && is_other && waits_since.elapsed() < LEAVE_MAX {
                others.push_back((name, since));
            } else if let Some(ready) = state.begin_turn(name, since) {
                batch_kind.get_or_insert(kind);
                turns.push(ready);
            }
        }
        others.append(&mut state.ready);
        state.ready = others;
        turns
    }

    /// What to do next in the slow lane; blocks until there is something, at most so long.
    pub fn next_slow(&self, patience: Duration) -> Option<Ready<T>> {
        let idle = |state: &mut State<T>| state.ready_slow.is_empty() && state.door == Door::Open;
        let waited = self.slow_ready.wait_timeout_while(self.lock(), patience, idle);
        let (mut state, _) = waited.ok()?;
        let (name, since) = state.ready_slow.pop_front()?;
        state.begin_turn(name, since)
    }

    /// Another program's lock held up a turn: it is repeated, and others of its session go by, in
    /// the slow lane; `since` goes on counting. Handed back once the service stops: nobody serves
    /// that lane any more.
    pub fn locked(&self, name: &Name, turn: Turn<T>, since: Instant) -> Option<Turn<T>> {
        let mut state = self.lock();
        if state.door == Door::Closed {
            return Some(turn);
        }
        state.mark_slow(name);
        match turn {
            Turn::Acquire(waiter) => state.stand(name, waiter),
            turn => state.line(name).direct.push_front((turn, since)),
        }
        state.line(name).turn = TurnState::Idle;
        state.make_ready(name, since);
        None
    }

    /// What came of a turn in the slow lane: whether the session stays there.
    pub fn leave_slow_lane(&self, name: &Name, lock: RowLock) {
        let mut state = self.lock();
        match lock {
            RowLock::Gone => drop(state.slow.remove(name)),
            RowLock::Held => state.mark_slow(name),
        }
    }

    /// A direct turn is over, and may have changed who holds the session: the line may try its
    /// luck. How long a lease was held that was granted here and has ended.
    pub fn done(&self, name: &Name, effect: Effect) -> Option<Duration> {
        let mut state = self.lock();
        let ended = match effect {
            Effect::Ended => state.held.sessions.remove(name),
            Effect::Renewed(expires) => {
                state.held.note(name, expires, None);
                None
            }
            Effect::None => None,
        };
        state.line(name).seen = None;
        state.end_turn(name, Next::Turn);
        ended.and_then(|known| Some(known.granted_at?.elapsed()))
    }

    /// Has somebody refused in its turn, whose wait is over. Handed back once the service stops:
    /// there are no more turns.
    pub fn refuse_in_turn(&self, name: &Name, refused: Refused<T>) -> Option<Refused<T>> {
        let mut state = self.lock();
        if state.door == Door::Closed {
            return Some(refused);
        }
        let until = refused.waiter.until;
        let direct = &mut state.line(name).direct;
        direct.push_back((Turn::Refuse(refused), until));
        state.make_ready(name, until);
        None
    }

    /// A turn is over that changed nothing. It may have had the place of somebody else, who came
    /// when the line was ready anyway.
    pub fn changed_nothing(&self, name: &Name) {
        self.lock().end_turn(name, Next::Turn);
    }

    /// A recall showed that the waiter does not hold the session: it takes its place in line.
    pub fn rejoin(&self, name: &Name, waiter: Waiter<T>) {
        let mut state = self.lock();
        let waits = waiter.waits();
        state.stand(name, waiter);
        state.end_turn(name, Next::Turn);
        drop(state);
        if waits {
            self.joined.notify_all();
        }
    }

    /// A turn that acquired showed who holds the session, as of a look that began at `began`:
    /// somebody else than `first`, who goes on waiting or not; or, without a `first`, who was granted
    /// the lease in this turn. Who has waited long enough.
    pub fn held(
        &self,
        name: &Name,
        first: Option<Waiter<T>>,
        began: Instant,
        holding: Holding,
    ) -> Vec<Refused<T>> {
        let mut state = self.lock();
        let granted_at = first.is_none().then(Instant::now);
        state.held.note(name, holding.expires, granted_at);
        state.line(name).seen = Some(Look { began, holding });
        if let Some(first) = first {
            state.stand(name, first);
        }
        let refused = state.refuse(name, Instant::now());
        let somebody_stays = !state.line(name).waiters.is_empty();
        state.end_turn(name, Next::Rest);
        drop(state);
        if somebody_stays {
            self.joined.notify_all();
        }
        refused
    }

    /// A turn failed: those who came before it began, and cannot be told more; and everything
    /// that was to be done after it, which would only fail as slowly.
    pub fn failed(&self, name: &Name, began: Instant) -> Vec<T> {
        let mut state = self.lock();
        let line = state.line(name);
        let all = std::mem::take(&mut line.waiters);
        let (failed, newcomers) = all.into_iter().partition(|waiter| waiter.arrived < began);
        line.waiters = newcomers;
        let failed: VecDeque<Waiter<T>> = failed;
        let direct = std::mem::take(&mut line.direct);
        state.waiting -= failed.len();
        state.end_turn(name, Next::Turn);
        let failed = failed.into_iter().map(|waiter| waiter.ticket);
        failed.chain(direct.into_iter().map(|(turn, _)| turn.into_ticket())).collect()
    }

    /// Takes everybody out of the line who has the claim that was just granted: the same worker,
    /// asking again.
    pub fn take_same(&self, name: &Name, claim: &Claim) -> Vec<Waiter<T>> {
        let mut state = self.lock();
        let line = state.line(name);
        let all = std::mem::take(&mut line.waiters);
        let (same, others) = all.into_iter().partition(|waiter| waiter.claim == *claim);
        line.waiters = others;
        let same: Vec<_> = VecDeque::into(same);
        state.waiting -= same.len();
        same
    }

    /// Those whose wait is over now; lines whose lease has expired get their turn.
    pub fn tick(&self, now: Instant) -> Vec<Refused<T>> {
        let mut state = self.lock();
        let mut refused = Vec::new();
        let names: Vec<_> = state.lines.keys().cloned().collect();
        for name in names {
            refused.extend(state.refuse(&name, now));
            let line = state.line(&name);
            let expired = line.seen.as_ref().is_some_and(|look| look.holding.expires <= now);
            if expired && !line.waiters.is_empty() && line.turn == TurnState::Idle {
                state.make_ready(&name, Instant::now());
            }
            state.forget_if_empty(&name);
        }
        refused
    }

    /// The rows that lines wait for.
    pub fn watched(&self) -> Vec<RowVersion> {
        let state = self.lock();
        let idle = state.lines.values().filter(|line| line.turn == TurnState::Idle);
        let waiting = idle.filter(|line| !line.waiters.is_empty());
        waiting.filter_map(|line| line.seen.as_ref().map(|look| look.holding.row)).collect()
    }

    /// These rows changed: their lines get their turn.
    pub fn changed(&self, rows: &[RowVersion]) {
        let rows: HashSet<_> = rows.iter().collect();
        let mut state = self.lock();
        let changed = |line: &Line<T>| {
            let row = line.seen.as_ref().map(|look| look.holding.row);
            line.turn == TurnState::Idle && row.is_some_and(|row| rows.contains(&row))
        };
        let lines = state.lines.iter().filter(|(_, line)| changed(line));
        for name in lines.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            state.make_ready(&name, Instant::now());
        }
    }

    /// Whether any session is ready for a worker.
    pub fn is_ready(&self) -> bool {
        !self.lock().ready.is_empty()
    }

    /// How many stand in a session's line, and may wait.
    pub fn waiters(&self, name: &Name) -> usize {
        let state = self.lock();
        let line = state.lines.get(name);
        line.map_or(0, |line| line.standing(Instant::now()))
    }

    /// How many stand in all lines.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Blocks until somebody waits, at most so long; whether anybody does.
    pub fn wait_for_waiters(&self, patience: Duration) -> bool {
        let nobody = |state: &mut State<T>| state.waiting == 0 && state.door == Door::Open;
        let waited = self.joined.wait_timeout_while(self.lock(), patience, nobody);
        waited.is_ok_and(|(state, _)| state.waiting > 0)
    }

    /// Nobody waits any more: all who did, and all that is not begun.
    pub fn close(&self) -> Vec<T> {
        let mut state = self.lock();
        state.door = Door::Closed;
        state.waiting = 0;
        let mut tickets = Vec::new();
        for line in state.lines.values_mut() {
            tickets.extend(line.waiters.drain(..).map(|waiter| waiter.ticket));
            tickets.extend(line.direct.drain(..).map(|(turn, _)| turn.into_ticket()));
        }
        drop(state);
        self.joined.notify_all();
        self.slow_ready.notify_all();
        tickets
    }
}

/// What follows a turn.
#[derive(Clone, Copy)]
enum Next {
    /// Another, if there is anybody for it.
    Turn,
    /// Nothing, until something happens.
    Rest,
}

impl<T> Line<T> {
    /// How many may wait; the others stand there only until it was looked for them.
    fn standing(&self, now: Instant) -> usize {
        self.waiters.iter().filter(|waiter| waiter.until > now).count()
    }
}

impl<T> State<T> {
    fn line(&mut self, name: &Name) -> &mut Line<T> {
        if !self.lines.contains_key(name) {
            let line = Line {
                direct: VecDeque::new(),
                waiters: VecDeque::new(),
                turn: TurnState::Idle,
                seen: None,
            };
            self.lines.insert(name.clone(), line);
        }
        self.lines.get_mut(name).expect("it is there")
    }

    /// In the order of arrival.
    fn stand(&mut self, name: &Name, mut waiter: Waiter<T>) {
        if self.door == Door::Closed {
            waiter.until = waiter.arrived;
        }
        let waiters = &mut self.line(name).waiters;
        let place = waiters.partition_point(|other| other.arrived <= waiter.arrived);
        waiters.insert(place, waiter);
        self.waiting += 1;
    }

    fn make_ready(&mut self, name: &Name, since: Instant) {
        let line = self.line(name);
        match line.turn {
            TurnState::Idle => {
                line.turn = TurnState::Ready;
                if self.is_slow(name) {
                    self.push_slow(name.clone(), since);
                } else {
                    self.ready.push_back((name.clone(), since));
                }
            }
            TurnState::Working => line.turn = TurnState::WorkingThenReady,
            TurnState::Ready | TurnState::WorkingThenReady => {}
        }
    }

    fn push_slow(&mut self, name: Name, since: Instant) {
        self.ready_slow.push_back((name, since));
        self.slow_ready.notify_one();
    }

    /// What kind the next turn of a session that is ready is, and since when somebody waits for it.
    fn front(&mut self, name: &Name, since: Instant) -> (Kind, Instant) {
        match self.line(name).direct.front() {
            Some((_, since)) => (Kind::Rest, *since),
            None => (Kind::Acquire, since),
        }
    }

    fn begin_turn(&mut self, name: Name, since: Instant) -> Option<Ready<T>> {
        let line = self.line(&name);
        let direct = line.direct.pop_front();
        let acquire = || {
            let waiter = line.waiters.pop_front()?;
            let since = since.min(waiter.until);
            Some((Turn::Acquire(waiter), since))
        };
        let Some((turn, since)) = direct.or_else(acquire) else {
            line.turn = TurnState::Idle;
            self.forget_if_empty(&name);
            return None;
        };
        line.turn = TurnState::Working;
        if matches!(turn, Turn::Acquire(_)) {
            self.waiting -= 1;
        }
        let is_cautious = self.locked_at.is_some_and(|at| at.elapsed() < CAUTIOUS_FOR);
        let first_packet =
            if is_cautious { FirstPacket::Look } else { self.held.first_packet(&name) };
        Some(Ready { name, turn, since, first_packet })
    }

    fn is_slow(&self, name: &Name) -> bool {
        !self.slow.is_empty() && self.slow.get(name).is_some_and(|until| *until > Instant::now())
    }

    fn mark_slow(&mut self, name: &Name) {
        let now = Instant::now();
        self.locked_at = Some(now);
        self.slow.retain(|_, until| *until > now);
        self.slow.insert(name.clone(), now + SLOW_FOR);
    }

    fn end_turn(&mut self, name: &Name, next: Next) {
        let line = self.line(name);
        let again = line.turn == TurnState::WorkingThenReady || matches!(next, Next::Turn);
        let anybody = !line.direct.is_empty() || !line.waiters.is_empty();
        line.turn = TurnState::Idle;
        if again && anybody {
            self.make_ready(name, Instant::now());
        } else {
            self.forget_if_empty(name);
        }
    }

    fn forget_if_empty(&mut self, name: &Name) {
        let line = self.line(name);
        if line.turn == TurnState::Idle && line.direct.is_empty() && line.waiters.is_empty() {
            self.lines.remove(name);
        }
    }

    /// Takes those out of a line whose wait is over, and who came before the last look began.
    fn refuse(&mut self, name: &Name, now: Instant) -> Vec<Refused<T>> {
        let line = self.line(name);
        let Some(Look { began, holding }) = &line.seen else {
            return Vec::new();
        };
        if holding.expires <= now {
            // What was seen is over; the line's turn shows what is now.
            return Vec::new();
        }
        let (began, holding) = (*began, holding.clone());
        let is_over = |waiter: &Waiter<T>| waiter.until <= now && waiter.arrived <= began;
        let all = std::mem::take(&mut line.waiters);
        let (over, others): (VecDeque<_>, _) = all.into_iter().partition(is_over);
        line.waiters = others;
        let waiters = line.standing(now);
        self.waiting -= over.len();
        let refused =
            over.into_iter().map(|waiter| Refused { waiter, holding: holding.clone(), waiters });
        refused.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::Holder;

    const BATCH: usize = 10;

    fn name() -> Name {
        ("bot1".to_owned(), "60123456789".to_owned())
    }

    fn holding() -> Holding {
        Holding {
            expires: Instant::now() + Duration::from_secs(60),
            holder: Holder::Legacy,
            row: RowVersion::new(1, b""),
        }
    }

    fn waiter(ticket: &'static str) -> Waiter<&'static str> {
        let claim = Claim { owner_token: OwnerToken::draw(), message_id: None };
        let arrived = Instant::now();
        Waiter { claim, arrived, until: arrived, ticket }
    }

    fn refused(ticket: &'static str) -> Refused<&'static str> {
        Refused { waiter: waiter(ticket), holding: holding(), waiters: 0 }
    }

    /// Takes turns until there are none, as a worker does: whose they were, in their order.
    fn take_turns(lines: &Lines<&'static str>) -> Vec<&'static str> {
        let mut tickets = Vec::new();
        while let Some(Ready { name, turn, .. }) = lines.next(Portion::Everything, BATCH).pop() {
            let began = Instant::now();
            match turn {
                Turn::Refuse(_) => lines.changed_nothing(&name),
                Turn::Acquire(_) => drop(lines.held(&name, None, began, holding())),
                Turn::Recall(_) | Turn::Direct(_) => drop(lines.done(&name, Effect::None)),
            }
            tickets.push(turn.into_ticket());
        }
        tickets
    }

    #[test]
    fn all_that_is_to_be_done_to_a_session_has_its_turn() {
        let lines = Lines::default();
        lines.refuse_in_turn(&name(), refused("a"));
        lines.refuse_in_turn(&name(), refused("b"));
        lines.submit(&name(), "release", Instant::now());
        lines.join(&name(), waiter("c"), TokenOrigin::Ours);
        assert_eq!(take_turns(&lines), ["a", "b", "release", "c"]);
    }

    /// So many sessions.
    fn names<const N: usize>() -> [Name; N] {
        std::array::from_fn(|number| ("bot1".to_owned(), number.to_string()))
    }

    /// Takes the next batch of one kind; its tickets.
    fn next_batch(lines: &Lines<&'static str>, limit: usize) -> Vec<&'static str> {
        let turns = lines.next(Portion::OneKind, limit).into_iter();
        turns.map(|ready| ready.turn.into_ticket()).collect()
    }

    #[test]
    fn acquires_are_kept_apart_from_the_rest() {
        let (lines, names) = (Lines::default(), names::<4>());
        lines.submit(&names[0], "release", Instant::now());
        lines.join(&names[1], waiter("a"), TokenOrigin::Ours);
        lines.submit(&names[2], "renew", Instant::now());
        lines.join(&names[3], waiter("b"), TokenOrigin::Ours);
        let batches = [0; 3].map(|_| next_batch(&lines, BATCH));
        assert_eq!(batches, [vec!["release", "renew"], vec!["a", "b"], vec![]]);
    }

    #[test]
    fn who_has_waited_for_long_is_not_left_for_the_next_batch() {
        let (lines, names) = (Lines::default(), names::<2>());
        let long_ago = Instant::now().checked_sub(LEAVE_MAX).unwrap();
        lines.join(&names[0], waiter("a"), TokenOrigin::Ours);
        lines.submit(&names[1], "release", long_ago);
        assert_eq!(next_batch(&lines, BATCH), ["a", "release"]);
    }

    #[test]
    fn what_is_left_goes_first_the_next_time() {
        let (lines, names) = (Lines::default(), names::<4>());
        lines.submit(&names[0], "release", Instant::now());
        lines.join(&names[1], waiter("a"), TokenOrigin::Ours);
        lines.submit(&names[2], "renew", Instant::now());
        lines.submit(&names[3], "commit", Instant::now());
        let batches = [0; 3].map(|_| next_batch(&lines, 2));
        let expected = [vec!["release", "renew"], vec!["a"], vec!["commit"]];
        assert_eq!(batches, expected);
    }

    #[test]
    fn a_session_with_nobody_left_decides_nothing() {
        let (lines, names) = (Lines::default(), names::<2>());
        lines.join(&names[0], waiter("a"), TokenOrigin::Ours);
        lines.lock().line(&names[0]).waiters.clear();
        lines.submit(&names[1], "release", Instant::now());
        assert_eq!(next_batch(&lines, BATCH), ["release"]);
    }

    #[test]
    fn who_joins_while_another_is_looked_up_is_not_forgotten() {
        let lines = Lines::default();
        lines.join(&name(), waiter("a"), TokenOrigin::Ours);
        let turn = lines.next(Portion::Everything, BATCH).pop().unwrap().turn;
        let began = Instant::now();
        lines.join(&name(), waiter("b"), TokenOrigin::Ours);
        let Turn::Acquire(first) = turn else {
            panic!("an acquire");
        };
        for refused in lines.held(&name(), Some(first), began, holding()) {
            lines.refuse_in_turn(&name(), refused);
        }
        assert_eq!(take_turns(&lines), ["a", "b"]);
    }

    #[test]
    fn what_another_programs_lock_held_up_has_waited_since_it_came() {
        let lines = Lines::default();
        let mut patient = waiter("acquire");
        patient.until += Duration::from_secs(60);
        let came = [Instant::now(), patient.arrived];
        lines.submit(&name(), "release", came[0]);
        lines.join(&("bot2".to_owned(), name().1), patient, TokenOrigin::Ours);
        let ready = lines.next(Portion::Everything, BATCH).into_iter();
        for (Ready { name, turn, since, .. }, expected) in
            ready.zip(["release", "acquire"].into_iter().zip(came))
        {
            assert!(lines.locked(&name, turn, since).is_none());
            let slow = lines.next_slow(Duration::ZERO).unwrap();
            assert_eq!((slow.turn.into_ticket(), slow.since), expected);
        }
    }

    #[test]
    fn what_stood_behind_another_turn_has_waited_since_it_came() {
        let lines = Lines::default();
        lines.submit(&name(), "renew", Instant::now());
        assert_eq!(lines.next(Portion::Everything, BATCH).len(), 1);
        let arrived = Instant::now();
        lines.submit(&name(), "release", arrived);
        let acquire = waiter("acquire");
        let until = acquire.until;
        lines.join(&name(), acquire, TokenOrigin::Ours);
        for since in [arrived, until] {
            let _ = lines.done(&name(), Effect::None);
            assert_eq!(lines.next(Portion::Everything, BATCH).pop().unwrap().since, since);
        }
    }

    #[test]
    fn what_another_programs_lock_holds_up_at_the_end_is_handed_back() {
        let lines = Lines::default();
        lines.submit(&name(), "release", Instant::now());
        let Ready { name, turn, since, .. } = lines.next(Portion::Everything, BATCH).pop().unwrap();
        lines.close();
        let back = lines.locked(&name, turn, since);
        assert_eq!(back.map(Turn::into_ticket), Some("release"));
    }

    #[test]
    fn who_joins_after_the_end_is_told_by_the_next_one() {
        let lines = Lines::default();
        assert!(lines.close().is_empty());
        lines.join(&name(), waiter("a"), TokenOrigin::Ours);
        lines.submit(&name(), "release", Instant::now());
        assert_eq!(lines.close(), ["a", "release"]);
    }
}
