//! What follows from each action.

use std::rc::Rc;

use super::plan::{self, Event, Plan, Progress, Request, Seen, Sending, TTL_US, UNIT_US, Verb};
use super::run::{Line as On, NOBODY, reply};
use super::sql::{Session, Stmt};
use super::table::{Conn, Outcome, Row, RowRead, Rules, Table};
use super::world::{Action, Config, Flight, Line, OPERATOR, Old, State, Stray, Sweep};
use super::wrong::{Answered, Wrong, tell};

/// How far the clock moves when nothing happens for long: more than half of a ttl, so that two of
/// them are more than a ttl.
const JUMP_US: u64 = 100 * UNIT_US;

/// How far it steps back.
const STEP_BACK_US: u64 = 150 * UNIT_US;

impl Config {
    /// The state after an action; `None` if it cannot happen.
    pub fn next(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.act(&mut state, action)?;
        state.flights.sort_by_key(|flight| {
            (flight.batch[0].request.owner, flight.server, flight.batch[0].at_us)
        });
        if state.wrong.is_none() && state.is_quiet() && self.is_wedged(&state) {
            state.wrong = Some(Wrong::Wedged);
        }
        Some(state)
    }

    fn act(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Ask(worker, verb) => self.ask(state, &[(worker, verb)]),
            Action::AskTogether(one, verb, two, with) => {
                self.ask(state, &[(one, verb), (two, with)]);
            }
            Action::AskAgain(worker, server) => self.ask_again(state, worker, server)?,
            Action::OperatorAsks => self.operator_asks(state),
            Action::Run(at) => self.run(state, at)?,
            Action::RunColliding(at) => self.run_next(state, at, true)?,
            Action::Deliver(at) => self.deliver(state, at)?,
            Action::DeliverUnheard(at) => {
                state.left.unheard -= 1;
                state.flights[at].wanted.fill(false);
                if self.merges { self.run(state, at)? } else { self.deliver(state, at)? }
            }
            Action::RunAndLose(at) => {
                self.run_merged(state, at)?;
                self.lose(state, at)?;
            }
            Action::Lose(at) => self.lose(state, at)?,
            Action::RunLost(at) => self.run_lost(state, at)?,
            Action::Kill(at) => self.proceed(state, at),
            Action::Crash(server) => crash(state, server),
            Action::RunStray(at) => self.run_stray(state, at)?,
            Action::EndStray(at) => drop(state.strays.remove(at)),
            Action::RowLocked(at) => self.end_wait(state, at, &Event::RowLocked)?,
            Action::Deadlock(at) => self.end_wait(state, at, &Event::Restarted)?,
            Action::Old(at) => self.old(state, at)?,
            Action::Sweep => self.sweep(state)?,
            Action::Jump => {
                state.left.jumps -= 1;
                state.table.now_us += JUMP_US;
            }
            Action::StepBack => {
                state.left.steps_back -= 1;
                state.table.now_us -= STEP_BACK_US;
                state.table.behind_us += STEP_BACK_US;
            }
            Action::Import => {
                state.left.imports -= 1;
                let keys: Vec<_> = state.table.rows.iter().rev().map(|row| row.key).collect();
                for (row, key) in state.table.rows.iter_mut().zip(keys) {
                    row.key = key;
                }
            }
            Action::Lag => {
                state.left.replicas -= 1;
                state.replica = Some(state.table.clone());
            }
            Action::ReachReplica(at) => {
                let Line::Packet { conn, .. } = &mut state.flights[at].line else { return None };
                conn.is_replica = true;
            }
        }
        Some(())
    }

    pub fn start(&self, state: &mut State, server: u8, requests: &[Request]) {
        let at_us = state.table.server_us(self.rules);
        let progress = |request: &Request| Progress { request: *request, events: vec![], at_us };
        state.flights.push(Flight {
            server,
            batch: requests.iter().map(progress).collect(),
            wanted: vec![true; requests.len()],
            changed: vec![false; requests.len()],
            line: packet(at_us),
        });
    }

    fn ask(&self, state: &mut State, asked: &[(usize, Verb)]) {
        let server = self.server_of(state, asked[0].0).expect("a server is free");
        let request = |(worker, verb): &(usize, Verb)| self.request(*worker, *verb, server);
        self.start(state, server, &asked.iter().map(request).collect::<Vec<_>>());
        for (worker, verb) in asked {
            let worker = &mut state.workers[*worker];
            worker.waits_for = Some(*verb);
            worker.stage = verb.stage() + 1;
            if worker.stage == Verb::OVER {
                // It has finished its work.
                worker.until_us = 0;
            }
        }
    }

    fn ask_again(&self, state: &mut State, worker: usize, server: u8) -> Option<()> {
        let verb = state.workers[worker].waits_for?;
        state.left.again -= 1;
        let request = self.request(worker, verb, server);
        for flight in &mut state.flights {
            for (progress, wanted) in flight.batch.iter().zip(&mut flight.wanted) {
                *wanted &= progress.request.owner != request.owner;
            }
        }
        self.start(state, server, &[request]);
        Some(())
    }

    fn operator_asks(&self, state: &mut State) {
        state.operator_asked = true;
        let session = self.operator.expect("there is an operator");
        let (verb, owner) = (Verb::Force, OPERATOR);
        self.start(state, 0, &[Request::new(verb, session, owner)]);
    }

    /// Runs the next statement of a packet. If steps are merged, the reply to the last one is delivered at
    /// once; and once the transaction holds its session's lock and has only to read and to commit,
    /// it does so at once, because nobody can change what it reads.
    fn run(&self, state: &mut State, at: usize) -> Option<()> {
        self.run_merged(state, at)?;
        let is_over = self.merges && state.flights.get(at).is_some_and(Flight::is_run);
        if is_over { self.deliver(state, at) } else { Some(()) }
    }

    fn run_merged(&self, state: &mut State, at: usize) -> Option<()> {
        let batch = state.flights[at].batch.clone();
        self.run_next(state, at, false)?;
        // After an error, the batch sends another packet.
        while self.merges && state.flights.get(at).is_some_and(|flight| flight.only_reads(&batch)) {
            self.run_next(state, at, false)?;
        }
        Some(())
    }

    /// Runs the next statement of a packet, and a `START TRANSACTION` before it.
    pub fn run_next(&self, state: &mut State, at: usize, collides: bool) -> Option<()> {
        let plan = state.flights[at].plan();
        let sending = plan.sending()?;
        let Line::Packet { at: next, conn, .. } = &state.flights[at].line else { return None };
        let (mut next, mut conn) = (*next, conn.clone());
        let owner = state.flights[at].batch[0].request.owner;
        let mut replies = vec![];
        while sending.stmts[next].is_prelude() {
            let stmt = &sending.stmts[next];
            let ran = self.run_stmt(state, stmt, &mut conn, (On::Flight(at), owner));
            let Some(reply) = reply(ran.outcome) else {
                self.go_on(state, at, sending, &Event::Refused);
                return Some(());
            };
            // The product drops the reply of the first.
            replies.extend(Some(reply).filter(|_| *stmt != Stmt::TakesWrites));
            next += 1;
        }
        let mut stmt = sending.stmts[next].clone();
        if collides {
            state.left.collisions -= 1;
            let key = state.key_of_other(state.flights[at].batch[0].request.session);
            stmt = state.with_keys(&stmt, Some(key?));
        }
        let ran = self.run_stmt(state, &stmt, &mut conn, (On::Flight(at), owner));
        let flight = &mut state.flights[at];
        for (progress, changed) in flight.batch.iter().zip(&mut flight.changed) {
            *changed |= ran.changed.contains(&progress.request.session);
        }
        match ran.outcome {
            Outcome::Done(reply) => {
                replies.push(reply);
                next += 1;
            }
            Outcome::Begun => {}
            Outcome::Blocked => return None,
            Outcome::NotAllReleased => {
                self.go_on(state, at, sending, &Event::NotAllReleased);
                return Some(());
            }
            Outcome::ReadOnly => {
                self.go_on(state, at, sending, &Event::Refused);
                return Some(());
            }
        }
        if let Line::Packet { at, replies: all, conn: of, .. } = &mut flight.line {
            all.extend(replies);
            (*at, *of) = (next, conn);
        }
        Some(())
    }

    fn deliver(&self, state: &mut State, at: usize) -> Option<()> {
        receive(state, at, self.rules)?;
        self.proceed(state, at);
        Some(())
    }

    fn go_on(&self, state: &mut State, at: usize, sending: &Sending, event: &Event) {
        let at_us = state.table.server_us(self.rules);
        for member in &sending.members {
            let progress = &mut state.flights[at].batch[*member];
            progress.events.push(event.clone());
            progress.at_us = at_us;
        }
        self.proceed(state, at);
    }

    /// A batch sends its next packet, or is answered.
    fn proceed(&self, state: &mut State, at: usize) {
        let plan = state.flights[at].plan();
        let Plan::Answer(answers) = &*plan else {
            let sent_us = state.table.server_us(self.rules);
            state.flights[at].line = packet(sent_us);
            return;
        };
        let flight = state.flights.remove(at);
        for (number, told) in answers.iter().enumerate() {
            let (request, changed) = (flight.batch[number].request, flight.changed[number]);
            if flight.wanted[number] {
                let (is_from_replica, was_lost) =
                    (flight.conn().is_replica, flight.was_lost(number));
                let told = *told;
                let answered = Answered { request, told, changed, was_lost, is_from_replica };
                let wrong = tell(self, state, &answered);
                state.wrong = state.wrong.or(wrong);
            }
        }
    }

    fn lose(&self, state: &mut State, at: usize) -> Option<()> {
        state.left.lost -= 1;
        let plan = state.flights[at].plan();
        let sending = plan.sending()?;
        let Line::Packet { sent_us, .. } = &state.flights[at].line else { return None };
        let event = Event::Lost(*sent_us);
        let stray = state.flights[at].stray(false)?;
        if self.kills {
            let at_us = state.table.server_us(self.rules);
            let flight = &mut state.flights[at];
            for member in &sending.members {
                flight.batch[*member].events.push(event.clone());
                flight.batch[*member].at_us = at_us;
            }
            flight.line = Line::Kill(stray);
        } else {
            state.strays.extend(Some(stray).filter(|stray| !stray.is_over()));
            self.go_on(state, at, sending, &event);
        }
        Some(())
    }

    fn run_lost(&self, state: &mut State, at: usize) -> Option<()> {
        let Line::Kill(stray) = &state.flights[at].line else { return None };
        let mut stray = stray.clone();
        let changed = self.run_rest(state, &mut stray, On::Flight(at))?;
        let flight = &mut state.flights[at];
        for (progress, is_changed) in flight.batch.iter().zip(&mut flight.changed) {
            *is_changed |= changed.contains(&progress.request.session);
        }
        flight.line = Line::Kill(stray);
        Some(())
    }

    fn run_stray(&self, state: &mut State, at: usize) -> Option<()> {
        let mut stray = state.strays[at].clone();
        let changed = self.run_rest(state, &mut stray, On::Stray(at))?;
        let is_answered = !state.flights.iter().any(|flight| {
            flight.batch.iter().any(|progress| progress.request.owner == stray.owner)
        });
        if !changed.is_empty() && !stray.is_orphan && is_answered {
            state.wrong = state.wrong.or(Some(Wrong::EffectAfterAnswer));
        }
        state.strays[at] = stray;
        state.strays.retain(|stray| !stray.is_over());
        Some(())
    }

    /// Runs the next statement of a packet that nobody waits for.
    fn run_rest(&self, state: &mut State, stray: &mut Stray, on: On) -> Option<Vec<Session>> {
        while stray.stmts.get(stray.at)?.is_prelude() {
            stray.conn.is_open |= stray.stmts[stray.at] == Stmt::Start;
            stray.at += 1;
        }
        let stmt = stray.stmts[stray.at].clone();
        let ran = self.run_stmt(state, &stmt, &mut stray.conn, (on, stray.owner));
        match ran.outcome {
            Outcome::Done(_) => stray.at += 1,
            Outcome::Begun => {}
            Outcome::Blocked => return None,
            // The database skips the rest.
            Outcome::NotAllReleased | Outcome::ReadOnly => {
                Table::roll_back(&mut stray.conn);
                stray.at = stray.stmts.len();
            }
        }
        Some(ran.changed)
    }

    /// A statement that waits for a lock fails, and its packet is rolled back.
    fn end_wait(&self, state: &mut State, at: usize, event: &Event) -> Option<()> {
        let plan = state.flights[at].plan();
        let sending = plan.sending()?;
        if !self.is_blocked(state, at, sending) {
            return None;
        }
        state.left.waits_ended -= 1;
        // Of several, all go on alone: a check of each row's lock would come first, and only fail some.
        let event = if sending.members.len() > 1 { &Event::Restarted } else { event };
        self.go_on(state, at, sending, event);
        Some(())
    }

    fn is_blocked(&self, state: &State, at: usize, sending: &Sending) -> bool {
        let Line::Packet { at: next, conn, .. } = &state.flights[at].line else { return false };
        let mut rest = sending.stmts[*next..].iter().filter(|stmt| !stmt.is_prelude());
        let Some(stmt) = rest.next() else { return false };
        let owner = state.flights[at].batch[0].request.owner;
        let mut conn = conn.clone();
        conn.is_open = true;
        let ran = self.run_stmt(&mut state.clone(), stmt, &mut conn, (On::Flight(at), owner));
        ran.outcome == Outcome::Blocked
    }

    fn old(&self, state: &mut State, at: usize) -> Option<()> {
        let session = self.olds[at];
        let now_us = state.table.now_us;
        let mut conn = Conn::default();
        let mut run = |state: &mut State, stmt: &Stmt| {
            reply(self.run_stmt(state, stmt, &mut conn, (On::New, NOBODY)).outcome)
        };
        state.olds[at] = match state.olds[at] {
            Old::Idle => {
                let rows = run(state, &Stmt::OldRead(session))?.rows;
                let is_held = rows.first().is_some_and(|read| read.row.content.is_live(now_us));
                if is_held { Old::Over } else { Old::Checked }
            }
            Old::Checked => {
                run(state, &Stmt::OldUpsert(session, 0))?;
                let holds = |old: &Old| matches!(old, Old::Holds(until_us) if *until_us > now_us);
                if self.judges_olds && state.olds.iter().any(holds) {
                    state.wrong = Some(Wrong::TwoHolders);
                }
                Old::Holds(now_us + TTL_US)
            }
            Old::Holds(_) => {
                run(state, &Stmt::OldDelete(session))?;
                Old::Over
            }
            Old::Over => return None,
        };
        Some(())
    }

    fn sweep(&self, state: &mut State) -> Option<()> {
        let session = self.sweeper?;
        state.sweep = match &state.sweep {
            Sweep::Idle => {
                let row = state.table.row(session).cloned();
                let clock_us = state.table.now_us;
                let is_abandoned = |row: &Row| {
                    let row = row.clone();
                    let read = RowRead { row, clock_us };
                    session_lock::testing::is_abandoned(&plan::row(&read))
                };
                row.filter(is_abandoned).map_or(Sweep::Over, Sweep::Deletes)
            }
            Sweep::Deletes(row) => {
                let stmt = Stmt::DeleteRow(row.session, row.key, row.content.text());
                let ran = self.run_stmt(state, &stmt, &mut Conn::default(), (On::New, NOBODY));
                reply(ran.outcome)?;
                Sweep::Over
            }
            Sweep::Over => return None,
        };
        Some(())
    }
}

/// The replies reach the server: each operation decides.
pub fn receive(state: &mut State, at: usize, rules: Rules) -> Option<()> {
    let plan = state.flights[at].plan();
    let sending = plan.sending()?;
    let at_us = state.table.server_us(rules);
    let flight = &mut state.flights[at];
    let Line::Packet { replies, sent_us, .. } = &flight.line else { return None };
    for (number, member) in sending.members.iter().enumerate() {
        let progress = &mut flight.batch[*member];
        let (session, message) = (progress.request.session, progress.request.message);
        let event = if sending.is_plain_insert {
            let reply = replies.first()?;
            let is_dated = reply.affected == 3 && reply.last_insert_id > 0;
            Event::Inserted(is_dated.then_some((1, reply.last_insert_id)), *sent_us)
        } else {
            let own = sending.own[number].map(|at| &replies[at]);
            let rows = replies.iter().flat_map(|reply| &reply.rows);
            let mut records = replies.iter().flat_map(|reply| &reply.records);
            let seen = Seen {
                row: rows.clone().find(|read| read.row.session == session).cloned(),
                record: records
                    .find(|record| record.session == session && Some(record.message) == message)
                    .copied(),
                changed: own.map_or(0, |reply| reply.affected),
                written: own.map_or(0, |reply| reply.last_insert_id),
                sent_us: *sent_us,
            };
            if sending.reads { Event::Read(seen) } else { Event::Wrote(seen) }
        };
        progress.events.push(event);
        progress.at_us = at_us;
    }
    Some(())
}

/// A packet that was just sent.
pub fn packet(sent_us: u64) -> Line {
    Line::Packet { at: 0, replies: vec![], sent_us, conn: Conn::default() }
}

fn crash(state: &mut State, server: u8) {
    state.left.crashes -= 1;
    let (gone, alive) = std::mem::take(&mut state.flights)
        .into_iter()
        .partition(|flight: &Flight| flight.server == server);
    state.flights = alive;
    let gone: Vec<Flight> = gone;
    let strays = gone.iter().filter_map(|flight| flight.stray(true));
    state.strays.extend(strays.filter(|stray| !stray.is_over()));
}

impl Flight {
    /// Whether a packet of this member was lost.
    fn was_lost(&self, member: usize) -> bool {
        self.batch[member].events.iter().any(|event| matches!(event, Event::Lost(_)))
    }

    /// Whether its packet has run to the end.
    pub fn is_run(&self) -> bool {
        let plan = self.plan();
        let length = plan.sending().map(|sending| sending.stmts.len());
        matches!(&self.line, Line::Packet { at, .. } if Some(*at) == length)
    }

    /// Whether what is left of this batch's packet are reads under its own locks, and the COMMIT.
    fn only_reads(&self, batch: &[Progress]) -> bool {
        let plan = self.plan();
        let (Line::Packet { at, conn, .. }, Some(sending)) = (&self.line, plan.sending()) else {
            return false;
        };
        let is_rest =
            |stmt: &Stmt| matches!(stmt, Stmt::Read(_) | Stmt::ReadMessage(_) | Stmt::Commit);
        let has_locks = || batch.iter().all(|progress| conn.has_lock(progress.request.session));
        let rest = &sending.stmts[*at..];
        self.batch == batch
            && !rest.is_empty()
            && *at > 0
            && rest.iter().all(is_rest)
            && conn.is_open
            && (has_locks() || rest.len() == 1)
    }

    /// The rest of its packet, once nobody waits for it.
    fn stray(&self, is_orphan: bool) -> Option<Stray> {
        let owner = self.batch[0].request.owner;
        match &self.line {
            Line::Packet { at, conn, .. } => {
                let plan: Rc<Plan> = self.plan();
                let stmts = plan.sending()?.stmts.clone();
                Some(Stray { stmts, at: *at, conn: conn.clone(), owner, is_orphan })
            }
            Line::Kill(stray) => Some(Stray { is_orphan, ..stray.clone() }),
        }
    }
}

impl Stray {
    fn is_over(&self) -> bool {
        self.at == self.stmts.len()
    }
}
