//! What each file of `sql/` does to the simulated table.

use super::content::Content;
use super::sql::{Claim, Message, Owner, Renewal, Session, Stmt};
use super::table::{Conn, Guard, Outcome, Record, Reply, Row, RowRead, Rules, Table};

/// A statement's access to the table: what its own connection sees, and what others have locked.
pub(super) struct Access<'a> {
    pub table: &'a mut Table,
    pub conn: &'a mut Conn,
    pub others: &'a [&'a Conn],
    pub rules: Rules,
}

fn affected(affected: u64) -> Reply {
    Reply { affected, ..Reply::default() }
}

impl Access<'_> {
    pub fn is_locked(&self, session: Session) -> bool {
        self.others.iter().any(|other| other.locks.contains(&session))
    }

    /// Without its guard, a statement's clock is read when it begins, before it waits for a lock.
    pub fn begin(&mut self, stmt: &Stmt) -> Option<Outcome> {
        let is_early = stmt.clock_guard().is_some() && stmt.clock_guard() == self.rules.dropped;
        if !is_early || self.conn.began_us.is_some() {
            return None;
        }
        self.conn.began_us = Some(self.table.tick(self.rules));
        Some(Outcome::Begun)
    }

    /// `SYSDATE(6)`.
    fn now_us(&self) -> u64 {
        self.conn.began_us.unwrap_or(self.table.now_us)
    }

    fn row(&self, session: Session) -> Option<Row> {
        self.table.row_in(self.conn, session).cloned()
    }

    pub fn execute(&mut self, stmt: &Stmt) -> Outcome {
        let reply = match stmt {
            Stmt::Start => {
                self.conn.is_open = true;
                Reply::default()
            }
            Stmt::TakesWrites | Stmt::Written => self.written(),
            Stmt::Commit | Stmt::MayWrite => Reply::default(),
            Stmt::Acquire(claims) => match self.acquire(claims) {
                Some(reply) => reply,
                None => return Outcome::Blocked,
            },
            Stmt::ReleaseAnswered(session, owner, message) => {
                self.release_answered(*session, *owner, *message)
            }
            Stmt::Renew(session, owner, renewal) => self.renew(*session, *owner, renewal),
            Stmt::Release(session, owner) => self.release(
                *session,
                *owner,
                [Guard::ReleaseIgnoresOwner, Guard::ReleaseIgnoresExpiry],
            ),
            Stmt::ReleaseSeveral(leases) => self.release_several(leases),
            Stmt::AllReleased(rows) => {
                let is_true = self.conn.row_count == *rows;
                if !is_true && self.rules.has(Guard::SeveralBelieveCount) {
                    return Outcome::NotAllReleased;
                }
                Reply::default()
            }
            Stmt::DeleteRow(session, key, stored) => self.delete_row(*session, *key, stored),
            Stmt::Lock(session) => self.lock(*session),
            Stmt::Read(sessions) => self.read(sessions),
            Stmt::CommitMessage(session, message, owner) => {
                match self.commit_message(*session, *message, *owner) {
                    Some(reply) => reply,
                    None => return Outcome::Blocked,
                }
            }
            Stmt::RecordOnRelease(session, message, owner) => {
                let record = Record { session: *session, message: *message, owner: *owner };
                match self.record_on_release(record) {
                    Some(reply) => reply,
                    None => return Outcome::Blocked,
                }
            }
            Stmt::ReadMessage(messages) => {
                let record = |(session, message): &(_, _)| self.record_of(*session, *message);
                let records = messages.iter().filter_map(record).collect();
                Reply { records, ..Reply::default() }
            }
            Stmt::OldRead(session) => self.read(&[*session]),
            Stmt::OldUpsert(session, key) => self.old_upsert(*session, *key),
            Stmt::OldDelete(session) => self.delete_if(*session, |_| true),
        };
        Outcome::Done(reply)
    }

    fn acquire(&mut self, claims: &[Claim]) -> Option<Reply> {
        for claim in claims {
            let holder = self.table.row_with_key(self.conn, claim.key).map(|row| row.session);
            let is_locked = holder.is_some_and(|session| self.is_locked(session));
            if is_locked || self.others.iter().any(|other| other.inserts_key(claim.key)) {
                return None;
            }
        }
        let mut reply = Reply::default();
        let mut inserted = Vec::new();
        for claim in claims {
            let is_free = self.conflict(claim).is_none();
            reply.affected += u64::from(is_free);
            inserted.push(is_free);
        }
        // The second mention of each row finds the first one's claim, or the row that was there.
        for (claim, is_claim) in claims.iter().zip(inserted) {
            let target = if is_claim { None } else { self.conflict(claim) };
            self.date(claim, target, &mut reply);
        }
        Some(reply)
    }

    /// The row that an INSERT of this claim finds: first by the primary key, then by the session.
    fn conflict(&self, claim: &Claim) -> Option<Row> {
        let by_key = self.table.row_with_key(self.conn, claim.key).cloned();
        by_key.or_else(|| self.row(claim.session))
    }

    fn date(&mut self, claim: &Claim, target: Option<Row>, reply: &mut Reply) {
        let Some(row) = target else {
            let fencing = self.fencing();
            let content = Content::lease(claim.owner, fencing, claim.ttl_us, fencing);
            let row = Row { key: claim.key, session: claim.session, content };
            self.conn.set(claim.session, Some(row));
            (reply.affected, reply.last_insert_id) = (reply.affected + 2, fencing);
            return;
        };
        // Even an update that changes nothing keeps its lock.
        self.conn.lock(row.session);
        if !self.rules.has(Guard::AcquireDatesAnyRow) {
            let fencing = self.fencing();
            let content = Content::lease(claim.owner, fencing, claim.ttl_us, fencing);
            self.conn.set(row.session, Some(Row { content, ..row }));
            (reply.affected, reply.last_insert_id) = (reply.affected + 2, fencing);
            return;
        }
        let Some(replace) = &claim.replace else { return };
        let is_session =
            row.session == claim.session || !self.rules.has(Guard::AcquireReplacesOtherSession);
        let is_unchanged = row.content.text() == replace.stored
            || !self.rules.has(Guard::AcquireReplacesChangedRow);
        if is_session && is_unchanged {
            let now_us = self.fencing();
            let has_floor = self.rules.has(Guard::AcquireIgnoresFencingFloor);
            let fencing = now_us.max(if has_floor { replace.fencing_floor } else { 0 });
            let content = Content::shifted(claim.owner, now_us, replace.shift_us, fencing);
            self.conn.set(row.session, Some(Row { content, ..row }));
            (reply.affected, reply.last_insert_id) = (reply.affected + 2, fencing);
        }
    }

    /// The clock as a fencing token.
    fn fencing(&mut self) -> u64 {
        self.conn.began_us.unwrap_or_else(|| self.table.tick(self.rules))
    }

    /// Both statements also reset it.
    fn written(&mut self) -> Reply {
        let last_insert_id = std::mem::take(&mut self.conn.last_insert_id);
        Reply { last_insert_id, ..Reply::default() }
    }

    fn release_answered(&mut self, session: Session, owner: Owner, message: Message) -> Reply {
        let rules = self.rules;
        if !rules.has(Guard::AnsweredKeepsLease) {
            return Reply::default();
        }
        let by_other = !rules.has(Guard::AnsweredByOtherMessage);
        let records = self.table.records.iter();
        let mut records = records.filter(|record| record.session == session);
        if !records.any(|record| record.message == message || by_other) {
            return Reply::default();
        }
        let written = self.conn.last_insert_id;
        self.delete_if(session, |row| {
            row.content.owner() == Some(owner)
                && (row.content.fencing() == Some(written)
                    || !rules.has(Guard::AnsweredReleasesOtherLease))
        })
    }

    fn renew(&mut self, session: Session, owner: Owner, renewal: &Renewal) -> Reply {
        let (rules, now_us) = (self.rules, self.now_us());
        let Some(row) = self.row(session) else { return Reply::default() };
        let Content::Lease { fencing, owner: of, .. } = row.content else {
            return Reply::default();
        };
        let may = (of == owner || !rules.has(Guard::RenewIgnoresOwner))
            && (row.content.is_live(now_us) || !rules.has(Guard::RenewIgnoresExpiry))
            && (fencing + renewal.max_hold_us > now_us || !rules.has(Guard::RenewIgnoresMaxHold));
        if !may {
            return Reply::default();
        }
        let asked = Content::shifted(of, now_us, renewal.shift_us, fencing);
        let latest = Content::shifted(of, fencing, renewal.max_shift_us, fencing);
        let is_capped = rules.has(Guard::RenewIsNotCapped) && asked.date_us() > latest.date_us();
        let content = if is_capped { latest } else { asked };
        let changed = content != row.content;
        self.conn.set(session, Some(Row { content, ..row }));
        affected(u64::from(changed))
    }

    fn release(&mut self, session: Session, owner: Owner, guards: [Guard; 2]) -> Reply {
        let (rules, now_us) = (self.rules, self.now_us());
        self.delete_if(session, |row| {
            (row.content.owner() == Some(owner) || !rules.has(guards[0]))
                && (row.content.is_live(now_us) || !rules.has(guards[1]))
        })
    }

    fn release_several(&mut self, leases: &[(Session, Owner)]) -> Reply {
        let guards = [Guard::SeveralIgnoreOwners, Guard::SeveralIgnoreExpiry];
        let released =
            leases.iter().map(|(session, owner)| self.release(*session, *owner, guards).affected);
        affected(released.sum())
    }

    fn delete_row(&mut self, session: Session, key: i64, stored: &str) -> Reply {
        let Some(row) = self.table.row_with_key(self.conn, key).cloned() else {
            return Reply::default();
        };
        let rules = self.rules;
        let is_session = row.session == session || !rules.has(Guard::DeleteIgnoresSession);
        let is_unchanged = row.content.text() == stored || !rules.has(Guard::DeleteIgnoresBytes);
        self.delete_if(row.session, |_| is_session && is_unchanged)
    }

    /// A row that does not qualify is not locked.
    fn delete_if(&mut self, session: Session, qualifies: impl Fn(&Row) -> bool) -> Reply {
        match self.row(session).filter(qualifies) {
            Some(_) => {
                self.conn.set(session, None);
                affected(1)
            }
            None => Reply::default(),
        }
    }

    fn read(&self, sessions: &[Session]) -> Reply {
        let rows = sessions.iter().filter_map(|session| self.row(*session));
        let rows = rows.map(|row| RowRead { row, clock_us: self.table.now_us });
        Reply { rows: rows.collect(), ..Reply::default() }
    }

    fn record_of(&self, session: Session, message: Message) -> Option<Record> {
        self.table.record_in(self.conn, session, message)
    }

    fn lock(&mut self, session: Session) -> Reply {
        if self.row(session).is_some() && self.rules.has(Guard::CommitDoesNotLock) {
            self.conn.lock(session);
        }
        Reply::default()
    }

    fn record_on_release(&mut self, record: Record) -> Option<Reply> {
        let is_released = self.conn.row_count > 0 || !self.rules.has(Guard::RecordIgnoresCount);
        if !is_released {
            return Some(Reply::default());
        }
        self.record(record, Guard::RecordReplacesRecord)
    }

    /// The SELECT in this INSERT locks nothing.
    fn commit_message(
        &mut self,
        session: Session,
        message: Message,
        owner: Owner,
    ) -> Option<Reply> {
        let (rules, now_us) = (self.rules, self.now_us());
        let holds = self.row(session).is_some_and(|row| {
            (row.content.owner() == Some(owner) || !rules.has(Guard::CommitIgnoresOwner))
                && (row.content.is_live(now_us) || !rules.has(Guard::CommitIgnoresExpiry))
        });
        if !holds {
            return Some(Reply::default());
        }
        self.record(Record { session, message, owner }, Guard::CommitReplacesRecord)
    }

    /// `None` if another transaction is recording the same message.
    fn record(&mut self, record: Record, keeps_old: Guard) -> Option<Reply> {
        let is_same =
            |other: &&Record| (other.session, other.message) == (record.session, record.message);
        let mut uncommitted = self.others.iter().flat_map(|other| &other.records);
        if uncommitted.any(|other| is_same(&other)) {
            return None;
        }
        let old = self.record_of(record.session, record.message);
        if old.is_some() && self.rules.has(keeps_old) {
            return Some(Reply::default());
        }
        self.conn.records.push(record);
        Some(affected(1 + u64::from(old.is_some())))
    }

    /// The key is that of a new row.
    fn old_upsert(&mut self, session: Session, key: i64) -> Reply {
        let content = Content::Date(self.table.now_us / 1_000_000 + self.rules.old_ahead_s);
        let old = self.row(session);
        let changed = old.as_ref().is_none_or(|old| old.content != content);
        let count = if old.is_some() { 2 * u64::from(changed) } else { 1 };
        let key = old.map_or(key, |old| old.key);
        self.conn.set(session, Some(Row { key, session, content }));
        affected(count)
    }
}
