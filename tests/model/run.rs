//! A statement runs in the simulated database, whoever sent it, and what it did is judged.

use super::plan::NEW_KEY;
use super::sql::{Owner, Session, Stmt};
use super::table::{Conn, Outcome, Reply, Row};
use super::world::{Config, OPERATOR, State};
use super::wrong::{Change, Wrong, before_commit};

/// The owner of what old programs and sweeps write.
pub const NOBODY: Owner = 0;

/// The id of an old program's new row: the table's counter is above the ids of ours.
const COUNTER: i64 = 1_000;

/// Which connection a statement comes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Flight(usize),
    Stray(usize),
    /// One of its own.
    New,
}

/// What came of a statement.
pub struct Ran {
    pub outcome: Outcome,
    /// The sessions of which the statement's transaction, which is committed now, has changed something.
    pub changed: Vec<Session>,
}

impl Config {
    /// Runs a statement and, after a `COMMIT` or outside of a transaction, commits what was written.
    pub fn run_stmt(
        &self,
        state: &mut State,
        stmt: &Stmt,
        conn: &mut Conn,
        (line, owner): (Line, Owner),
    ) -> Ran {
        let others: Vec<Conn> = state.others(line);
        let others: Vec<_> = others.iter().collect();
        let stmt = &state.with_keys(stmt, None);
        let before = state.rows(conn);
        let recorded = conn.recorded().len();
        let written: Vec<_> = conn.written().iter().map(|(session, _)| *session).collect();
        let outcome = match state.replica.clone().filter(|_| conn.is_replica) {
            Some(mut replica) => {
                replica.now_us = state.table.now_us;
                replica.run(stmt, conn, &others, self.rules)
            }
            None => state.table.run(stmt, conn, &others, self.rules),
        };
        let mut changed = vec![];
        if let Outcome::Done(_) = outcome {
            state.judge(stmt, &before, conn, &written);
            if conn.recorded().len() > recorded {
                state.judge_record(stmt, conn);
            }
            if *stmt == Stmt::Commit || !conn.is_open {
                let ends_others = matches!(owner, OPERATOR | NOBODY) && !is_sweep(stmt, owner);
                changed = commit(state, conn, ends_others);
            }
        }
        Ran { outcome, changed }
    }
}

fn commit(state: &mut State, conn: &mut Conn, ends_others: bool) -> Vec<Session> {
    let wrong = before_commit(state, conn, ends_others);
    state.wrong = state.wrong.or(wrong);
    let rows = conn.written().iter().filter(|(session, row)| {
        state.table.row(*session).map(|row| &row.content) != row.as_ref().map(|row| &row.content)
    });
    let rows = rows.map(|(session, _)| *session);
    let changed = rows.chain(conn.recorded().iter().map(|record| record.session)).collect();
    state.table.commit(conn);
    changed
}

/// A sweep deletes what has expired, so nobody's lease ends by it.
fn is_sweep(stmt: &Stmt, owner: Owner) -> bool {
    owner == NOBODY && matches!(stmt, Stmt::DeleteRow(..))
}

impl State {
    fn others(&self, line: Line) -> Vec<Conn> {
        let flights =
            self.flights.iter().enumerate().map(|(at, flight)| (Line::Flight(at), flight.conn()));
        let strays =
            self.strays.iter().enumerate().map(|(at, stray)| (Line::Stray(at), &stray.conn));
        let all = flights.chain(strays).filter(|(other, _)| *other != line);
        all.map(|(_, conn)| conn.clone()).collect()
    }

    fn rows(&self, conn: &Conn) -> Vec<Option<Row>> {
        let sessions = 0..u8::try_from(self.fencing.len()).expect("few sessions");
        sessions.map(|session| self.table.row_in(conn, session).cloned()).collect()
    }

    fn judge(&mut self, stmt: &Stmt, before: &[Option<Row>], conn: &Conn, written: &[Session]) {
        let after = self.rows(conn);
        for (session, (before, after)) in (0..).zip(before.iter().zip(&after)) {
            if before == after {
                continue;
            }
            let (before, after, now_us) = (before.as_ref(), after.as_ref(), self.table.now_us);
            let was_written = written.contains(&session);
            let change = Change { stmt, session, before, after, now_us, was_written };
            self.wrong = self.wrong.or(change.wrong());
        }
    }

    /// A commit records a message only of who holds the lease; a release has deleted it.
    fn judge_record(&mut self, stmt: &Stmt, conn: &Conn) {
        if let Stmt::CommitMessage(session, _, owner) = stmt {
            let row = self.table.row_in(conn, *session).map(|row| &row.content);
            let now_us = self.table.now_us;
            if !row.is_some_and(|row| row.owner() == Some(*owner) && row.is_live(now_us)) {
                self.wrong = self.wrong.or(Some(Wrong::CommittedWithoutLease));
            }
        }
    }

    /// The statement with the ids of its new rows: the lowest that are free, or this one.
    pub fn with_keys(&self, stmt: &Stmt, taken: Option<i64>) -> Stmt {
        let mut stmt = stmt.clone();
        match &mut stmt {
            Stmt::Acquire(claims) => {
                let mut free = (1..).filter(|key| !self.has_key(*key));
                for claim in claims.iter_mut().filter(|claim| claim.key == NEW_KEY) {
                    claim.key = taken.or_else(|| free.next()).expect("some id is free");
                }
            }
            Stmt::OldUpsert(session, key) => *key = COUNTER + i64::from(*session),
            _ => {}
        }
        stmt
    }

    fn has_key(&self, key: i64) -> bool {
        self.table.rows.iter().any(|row| row.key == key)
            || self.conns().any(|conn| conn.inserts_key(key))
    }

    /// The id of another session's row.
    pub fn key_of_other(&self, session: Session) -> Option<i64> {
        self.table.rows.iter().find(|row| row.session != session).map(|row| row.key)
    }
}

/// The reply, if there was one.
pub fn reply(outcome: Outcome) -> Option<Reply> {
    match outcome {
        Outcome::Done(reply) => Some(reply),
        _ => None,
    }
}
