//! Who acts on the table, in which states they can be, and what can happen next.

use super::content::Content;
use super::plan::{self, Plan, Progress, Request, Sending, Verb};
use super::sql::{Message, Owner, Session, Stmt};
use super::table::{Conn, Reply, Row, Rules, Table};
use super::wrong::Wrong;

/// When the model begins.
pub const BEGIN_US: u64 = 1_760_432_400_000_000;

/// The owner of an operator's requests, who has no token.
pub const OPERATOR: Owner = 90;

/// A bot's worker. Its owner token is its number in the configuration, from 1.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    pub server: u8,
    pub session: Session,
    pub message: Option<Message>,
    /// Whether it names its message when it acquires, or only when it commits.
    pub names_message: bool,
}

/// How often each kind of thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Half a ttl and a little more passes.
    pub jumps: u8,
    /// A server loses its connection during a write.
    pub lost: u8,
    /// A server crashes.
    pub crashes: u8,
    /// A worker does not hear the answer.
    pub unheard: u8,
    /// A worker asks again, with the same token.
    pub again: u8,
    /// A statement waits for a lock for too long, or is chosen to end a deadlock.
    pub waits_ended: u8,
    /// A new row is given the id of another session's row.
    pub collisions: u8,
    /// A replica stops applying what the primary does.
    pub replicas: u8,
    /// The database's clock steps back.
    pub steps_back: u8,
    /// An import gives the rows other ids.
    pub imports: u8,
}

/// What a model explores.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // switches of a scene
pub struct Config {
    pub workers: &'static [WorkerConfig],
    /// The sessions of old programs, which check, upsert and delete.
    pub olds: &'static [Session],
    /// Whether old programs must not hold at once, either.
    pub judges_olds: bool,
    /// The session that an operator releases.
    pub operator: Option<Session>,
    /// The session whose abandoned row a server deletes.
    pub sweeper: Option<Session>,
    pub verbs: &'static [Verb],
    /// The longest hold by each server.
    pub max_hold_us: [u64; 2],
    /// Whether a worker asks again only once its first request is over, answered or not.
    pub patient: bool,
    /// Whether a server may send operations on several sessions in one packet.
    pub batches: bool,
    /// What is in the table at first: leases of a crashed worker, or other texts.
    pub stored: &'static [(Session, Stored)],
    pub budget: Budget,
    pub rules: Rules,
    /// Whether steps that nobody else can tell apart are one: see [`Config::run`].
    pub merges: bool,
    /// Whether a connection that was lost is killed before its operations are sent again.
    pub kills: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Stored {
    Abandoned,
    /// A date in the future.
    Ahead,
    Garbage,
}

impl Stored {
    fn content(self) -> Content {
        let date_s = BEGIN_US / 1_000_000 - 1_000;
        match self {
            Self::Abandoned => {
                Content::Lease { date_s, fencing: BEGIN_US - 2_000_000_000, owner: 80 }
            }
            Self::Ahead => Content::Date(date_s + 4_000),
            Self::Garbage => Content::Garbage,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub table: Table,
    pub replica: Option<Table>,
    pub workers: Vec<Worker>,
    pub olds: Vec<Old>,
    pub operator_asked: bool,
    pub sweep: Sweep,
    pub flights: Vec<Flight>,
    pub strays: Vec<Stray>,
    pub left: Budget,
    /// The highest fencing token that was committed for each session.
    pub fencing: Vec<u64>,
    pub wrong: Option<Wrong>,
}

/// What a worker has done, and what it believes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    /// The stage that it has reached: see [`Verb::stage`].
    pub stage: u8,
    pub waits_for: Option<Verb>,
    /// Until when it believes to hold its lease; 0 if it does not.
    pub until_us: u64,
    /// A neighbour or an operator ended its lease.
    pub was_ended: bool,
    pub has_committed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Old {
    #[default]
    Idle,
    /// It found the session free.
    Checked,
    /// Until then.
    Holds(u64),
    Over,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sweep {
    #[default]
    Idle,
    Deletes(Row),
    Over,
}

/// A batch in a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    pub server: u8,
    pub batch: Vec<Progress>,
    /// For each member, whether its worker still waits for this answer.
    pub wanted: Vec<bool>,
    /// For each member, whether a transaction of its own has changed something.
    pub changed: Vec<bool>,
    pub line: Line,
}

/// What a batch waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// The rest of its packet.
    Packet { at: usize, replies: Vec<Reply>, sent_us: u64, conn: Conn },
    /// The end of the connection that it lost.
    Kill(Stray),
}

/// A packet that nobody waits for any more. The database may run the rest of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stray {
    pub stmts: Vec<Stmt>,
    pub at: usize,
    pub conn: Conn,
    /// Whose operation it is; of several, the first one's.
    pub owner: Owner,
    /// Whether its server crashed, so that nobody will ever answer.
    pub is_orphan: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Ask(usize, Verb),
    /// Two workers of one server, in one batch.
    AskTogether(usize, Verb, usize, Verb),
    AskAgain(usize, u8),
    OperatorAsks,
    /// The database runs the next statement of a packet.
    Run(usize),
    /// Likewise, with the id of another session's row.
    RunColliding(usize),
    /// The reply reaches the server, which goes on or answers.
    Deliver(usize),
    /// Likewise, but the worker does not hear the answer.
    DeliverUnheard(usize),
    Lose(usize),
    /// The next statement runs, and then the connection is lost.
    RunAndLose(usize),
    /// A lost packet goes on in the database.
    RunLost(usize),
    Kill(usize),
    Crash(u8),
    RunStray(usize),
    EndStray(usize),
    RowLocked(usize),
    Deadlock(usize),
    Old(usize),
    Sweep,
    Jump,
    StepBack,
    Import,
    Lag,
    /// The next packet goes to the replica.
    ReachReplica(usize),
}

impl Config {
    pub fn begin(&self) -> State {
        let rows = self.stored.iter().zip(1..).map(|((session, stored), key)| Row {
            key,
            session: *session,
            content: stored.content(),
        });
        let table = Table { now_us: BEGIN_US, rows: rows.collect(), ..Table::default() };
        let sessions = self.workers.iter().map(|worker| worker.session);
        let sessions = sessions.chain(self.olds.iter().copied()).max().map_or(0, usize::from) + 1;
        let fencing = |session| {
            let row = table.rows.iter().find(|row| usize::from(row.session) == session);
            match row.map(|row| &row.content) {
                Some(Content::Lease { fencing, .. }) => *fencing,
                _ => 0,
            }
        };
        let fencing = (0..sessions).map(fencing).collect();
        State {
            table,
            replica: None,
            workers: vec![Worker::default(); self.workers.len()],
            olds: vec![Old::Idle; self.olds.len()],
            operator_asked: false,
            sweep: Sweep::Idle,
            flights: vec![],
            strays: vec![],
            left: self.budget,
            fencing,
            wrong: None,
        }
    }

    pub fn request(&self, worker: usize, verb: Verb, server: u8) -> Request {
        let WorkerConfig { session, message, names_message, .. } = self.workers[worker];
        let owner = owner(worker);
        let message = match verb {
            Verb::Acquire { .. } => message.filter(|_| names_message),
            Verb::Commit | Verb::Finish => message,
            _ => None,
        };
        let max_hold_us = self.max_hold_us[usize::from(server)];
        let is_callers_token = self.budget.again > 0;
        Request { verb, session, owner, message, max_hold_us, is_callers_token }
    }

    /// The server that a worker asks: its own, or the other one if it may have asked that before and its own is
    /// still at work on the session.
    pub fn server_of(&self, state: &State, worker: usize) -> Option<u8> {
        let WorkerConfig { server, session, .. } = self.workers[worker];
        let servers = [server, 1 - server];
        let servers = &servers[..if self.budget.again > 0 { 2 } else { 1 }];
        servers.iter().copied().find(|server| !state.is_busy(*server, session))
    }

    fn may_ask(&self, state: &State, worker: usize, verb: Verb) -> bool {
        let config = &self.workers[worker];
        let has_message = config.message.is_some();
        self.server_of(state, worker).is_some()
            && state.workers[worker].waits_for.is_none()
            && (has_message || !matches!(verb, Verb::Commit | Verb::Finish))
    }

    /// What a worker may ask for next: the verbs in their order, of which it may leave out some.
    fn asks(&self, state: &State, worker: usize) -> Vec<Verb> {
        let reached = state.workers[worker].stage;
        let is_next =
            |verb: &Verb| if reached == 0 { verb.stage() == 0 } else { verb.stage() >= reached };
        let verbs = self.verbs.iter().copied().filter(is_next);
        verbs.filter(|verb| self.may_ask(state, worker, *verb)).collect()
    }

    pub fn list_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        self.worker_actions(state, actions);
        for (at, flight) in state.flights.iter().enumerate() {
            self.flight_actions(state, at, flight, actions);
        }
        for at in 0..state.strays.len() {
            actions.extend([Action::RunStray(at), Action::EndStray(at)]);
        }
        for (at, old) in state.olds.iter().enumerate() {
            if *old != Old::Over {
                actions.push(Action::Old(at));
            }
        }
        if self.operator.is_some() && !state.operator_asked {
            actions.push(Action::OperatorAsks);
        }
        if self.sweeper.is_some() && state.sweep != Sweep::Over {
            actions.push(Action::Sweep);
        }
        let left = state.left;
        actions.extend((left.jumps > 0).then_some(Action::Jump));
        actions.extend((left.steps_back > 0).then_some(Action::StepBack));
        let is_idle = state.conns().all(|conn| conn.written().is_empty());
        actions.extend((left.imports > 0 && is_idle).then_some(Action::Import));
        actions.extend((left.replicas > 0).then_some(Action::Lag));
        if left.crashes > 0 {
            let busy = |server: &u8| state.flights.iter().any(|flight| flight.server == *server);
            actions.extend([0, 1].into_iter().filter(busy).map(Action::Crash));
        }
    }

    fn worker_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for worker in 0..self.workers.len() {
            let verbs = self.asks(state, worker);
            actions.extend(verbs.iter().map(|verb| Action::Ask(worker, *verb)));
            for other in worker + 1..self.workers.len() {
                let (one, two) = (&self.workers[worker], &self.workers[other]);
                if !self.batches || one.server != two.server || one.session == two.session {
                    continue;
                }
                for verb in &verbs {
                    let together = |with| Action::AskTogether(worker, *verb, other, with);
                    actions.extend(self.asks(state, other).into_iter().map(together));
                }
            }
            let waits = state.workers[worker].waits_for.is_some();
            let is_over = !self.patient || !state.is_under_way(owner(worker));
            if waits && is_over && state.left.again > 0 {
                let session = self.workers[worker].session;
                let free = |server: &u8| !state.is_busy(*server, session);
                let servers = [0, 1].into_iter().filter(free);
                actions.extend(servers.map(|server| Action::AskAgain(worker, server)));
            }
        }
    }

    fn flight_actions(&self, state: &State, at: usize, flight: &Flight, actions: &mut Vec<Action>) {
        let left = state.left;
        let Line::Packet { at: next, conn, .. } = &flight.line else {
            actions.extend([Action::RunLost(at), Action::Kill(at)]);
            return;
        };
        let plan = flight.plan();
        let Plan::Send(sending) = &*plan else { unreachable!("it has a packet") };
        if *next == sending.stmts.len() {
            actions.push(Action::Deliver(at));
            if left.unheard > 0 && flight.wanted.contains(&true) {
                actions.push(Action::DeliverUnheard(at));
            }
        } else {
            actions.push(Action::Run(at));
            if self.merges && left.unheard > 0 && flight.wanted.contains(&true) {
                actions.push(Action::DeliverUnheard(at));
            }
            if left.waits_ended > 0 {
                actions.extend([Action::RowLocked(at), Action::Deadlock(at)]);
            }
            if left.collisions > 0 && sending.inserts_next(*next) {
                actions.push(Action::RunColliding(at));
            }
            if *next == 0 && state.replica.is_some() && !conn.is_replica {
                actions.push(Action::ReachReplica(at));
            }
        }
        // After a read that was lost, the server just reads again.
        if left.lost > 0 && !sending.reads {
            actions.push(Action::Lose(at));
            actions.extend(self.merges.then_some(Action::RunAndLose(at)));
        }
    }
}

/// The owner token of a worker.
pub fn owner(worker: usize) -> Owner {
    u8::try_from(worker).expect("few workers") + 1
}

impl Verb {
    /// The stage of a worker that asks for nothing more.
    pub const OVER: u8 = 4;

    /// When a worker asks for it: in this order, but it may leave stages out.
    pub fn stage(self) -> u8 {
        match self {
            Self::Acquire { .. } | Self::Force => 0,
            Self::Renew => 1,
            Self::Commit => 2,
            Self::Release | Self::Finish => 3,
        }
    }
}

impl Sending {
    /// Whether the next statement, after a START TRANSACTION, inserts rows.
    fn inserts_next(&self, at: usize) -> bool {
        let mut rest = self.stmts[at..].iter().filter(|stmt| !stmt.is_prelude());
        matches!(rest.next(), Some(Stmt::Acquire(_)))
    }
}

impl Flight {
    pub fn plan(&self) -> std::rc::Rc<Plan> {
        plan::plan(&self.batch)
    }

    pub fn conn(&self) -> &Conn {
        match &self.line {
            Line::Packet { conn, .. } => conn,
            Line::Kill(stray) => &stray.conn,
        }
    }
}

impl State {
    /// Whether a server is at work on a session: others wait for their turn.
    fn is_busy(&self, server: u8, session: Session) -> bool {
        self.flights.iter().any(|flight| {
            flight.server == server && flight.batch.iter().any(|one| one.request.session == session)
        })
    }

    /// Whether something of this owner is in a server or in the database.
    fn is_under_way(&self, owner: Owner) -> bool {
        let mut requests = self.flights.iter().flat_map(|flight| &flight.batch);
        requests.any(|progress| progress.request.owner == owner)
            || self.strays.iter().any(|stray| stray.owner == owner)
    }

    /// Whether nothing is under way in the database.
    pub fn is_quiet(&self) -> bool {
        self.flights.is_empty() && self.strays.is_empty()
    }

    /// All connections to the database.
    pub fn conns(&self) -> impl Iterator<Item = &Conn> {
        let flights = self.flights.iter().map(Flight::conn);
        flights.chain(self.strays.iter().map(|stray| &stray.conn))
    }
}
