//! One operation on its way to its answer: which packet comes next, and what may have become of
//! the packets before. What rows mean is said in [`crate::lease`]; no connection is used here.

use std::time::Instant;

use super::operation::{Answer, FirstPacket, Operation, StoreError};
use crate::lease::{Acquire, Acquired, ForceStep, Forced, Read, Release, Replace, Row, Sent, Step};

/// Ids that are tried for a new row: enough to find one free if nine tenths of those that may be
/// used are taken.
const ID_TRIES_MAX: u32 = 20;

/// So many packets are sent for one operation, then it is answered with `unavailable`. None needs half as
/// many, unless a trigger undoes what it writes.
const PACKETS_MAX: u32 = 50;

/// The packet that an operation needs next.
pub(crate) enum Next {
    Read,
    Write,
    Replace(Replace),
    Delete(Row),
}

/// Whether an operation shares its statements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sharing {
    /// With others of its kind.
    Statements,
    /// It has statements of its own, among others in the packet.
    Packet,
    /// It has a packet of its own: something went wrong with several, and it is not known whose fault
    /// that was.
    Nothing,
}

/// An operation on its way to its answer.
pub(crate) struct Attempt<'a> {
    pub operation: &'a Operation,
    pub next: Next,
    pub sharing: Sharing,
    /// Whether an acquire was sent as one INSERT alone. If its count was no answer, the row is read from
    /// now on.
    insert_tried: bool,
    /// When the first packet was sent that may have taken effect without an answer.
    lost_at: Option<Instant>,
    /// The row that such a packet was to delete.
    tried: Option<Row>,
    ids_tried: u32,
    packets: u32,
    outcome: Option<Result<Answer, StoreError>>,
}

impl<'a> Attempt<'a> {
    pub fn new(operation: &'a Operation) -> Self {
        let next = match operation {
            Operation::Acquire(_, FirstPacket::Write)
            | Operation::Renew(_)
            | Operation::Commit(_)
            | Operation::Release(_) => Next::Write,
            Operation::Acquire(_, FirstPacket::Read)
            | Operation::Find(_)
            | Operation::Force(_)
            | Operation::Read(_) => Next::Read,
        };
        let sharing = match operation {
            // Its ids are taken as stored, and may compare like another's of the batch.
            Operation::Force(_) => Sharing::Nothing,
            _ => Sharing::Statements,
        };
        Self {
            operation,
            next,
            sharing,
            insert_tried: false,
            lost_at: None,
            tried: None,
            ids_tried: 0,
            packets: 0,
            outcome: None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.outcome.is_none()
    }

    pub fn is_reading(&self) -> bool {
        self.is_open() && matches!(self.next, Next::Read)
    }

    pub fn is_writing(&self) -> bool {
        self.is_open() && !matches!(self.next, Next::Read)
    }

    /// The release whose answer is the count of one statement.
    pub fn only_deletes(&self) -> Option<&Release> {
        match self.operation {
            Operation::Release(release) if release.message.is_none() && self.lost_at.is_none() => {
                Some(release)
            }
            _ => None,
        }
    }

    /// The acquire whose answer may be the count of one INSERT.
    pub fn only_inserts(&self) -> Option<&Acquire> {
        match (self.operation, &self.next) {
            (Operation::Acquire(acquire, _), Next::Write)
                if acquire.message_id.is_none() && self.lost_at.is_none() && !self.insert_tried =>
            {
                Some(acquire)
            }
            _ => None,
        }
    }

    /// Whether the answer to its write is in the session's row.
    pub fn reads_row(&self) -> bool {
        match self.operation {
            Operation::Acquire(..) | Operation::Renew(_) => true,
            Operation::Release(_) => self.lost_at.is_some(),
            _ => false,
        }
    }

    fn needs_packet_clock(&self) -> bool {
        matches!(self.operation, Operation::Acquire(acquire, _) if acquire.needs_packet_clock())
    }

    /// Whether it is an answer that a read finds nothing.
    pub fn answers_from_absence(&self) -> bool {
        matches!(self.operation, Operation::Force(_) | Operation::Read(_))
    }

    /// What was read, as of the operation's first packet.
    fn as_of_first_packet(&self, mut read: Read) -> Read {
        if let (Some(row), Some(lost_at)) = (&read.row, self.lost_at) {
            let since_us = u64::try_from(lost_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            read.began_us = row.clock_us.saturating_sub(since_us);
        } else if !self.needs_packet_clock() {
            read.began_us = 0;
        }
        read
    }

    fn sent(&mut self, at: Instant) -> Sent {
        self.packets += 1;
        if self.packets > PACKETS_MAX {
            self.fail(StoreError::Unavailable("too much contention".to_owned()));
        }
        Sent { at, again: self.lost_at.is_some() }
    }

    /// Decides after a read that was sent then.
    pub fn after_read(&mut self, mut read: Read, sent_at: Instant) {
        let sent = self.sent(sent_at);
        if !read.takes_writes && !self.answers_from_absence() {
            // The write will tell.
            read.row = None;
        }
        match self.operation {
            Operation::Acquire(acquire, _) => {
                self.acquired(acquire.after_read(read, sent), sent_at);
            }
            Operation::Find(acquire) => self.answer(Answer::Find(acquire.find(read, sent))),
            Operation::Force(force) => match force.after_read(read, self.tried.as_ref()) {
                ForceStep::Answer(forced) => self.answer(Answer::Force(forced)),
                ForceStep::Delete(row) => self.next = Next::Delete(row),
            },
            Operation::Read(_) => {
                let holding = read.row.and_then(|row| row.holding(sent_at));
                self.answer(Answer::Read(holding));
            }
            Operation::Renew(_) | Operation::Commit(_) | Operation::Release(_) => {}
        }
    }

    /// Decides after a write that was sent then and is committed.
    pub fn after_write(&mut self, read: Read, sent_at: Instant) {
        let read = self.as_of_first_packet(read);
        let sent = self.sent(sent_at);
        match self.operation {
            Operation::Acquire(acquire, _) => {
                let replaced = match &self.next {
                    Next::Replace(replaced) => Some(replaced),
                    _ => None,
                };
                let step = acquire.after_write(read, sent, replaced);
                self.acquired(step, sent_at);
            }
            Operation::Renew(renew) => self.answer(Answer::Renew(renew.answer(&read, sent))),
            Operation::Commit(commit) => self.answer(Answer::Commit(commit.answer(read, sent))),
            Operation::Release(release) => {
                self.answer(Answer::Release(release.answer(&read, sent)));
            }
            Operation::Force(_) => match std::mem::replace(&mut self.next, Next::Read) {
                Next::Delete(row) if read.changed > 0 => {
                    self.answer(Answer::Force(Forced::Released(row.holder())));
                }
                // It changed meanwhile.
                _ => {}
            },
            Operation::Find(_) | Operation::Read(_) => {}
        }
    }

    /// Decides after one INSERT, which wrote a row with this id and fencing token, or nothing.
    pub fn after_insert(&mut self, row: Option<(u64, u64)>, sent_at: Instant) {
        let sent = self.sent(sent_at);
        let Operation::Acquire(acquire, _) = self.operation else {
            return;
        };
        self.insert_tried = true;
        match row {
            Some((key, fencing_us)) => match acquire.after_insert(key, fencing_us, sent) {
                Some(lease) => self.answer(Answer::Acquire(Acquired::Granted(lease))),
                // The next packet finds it as its own.
                None => self.lost(sent_at),
            },
            None => self.next = Next::Read,
        }
    }

    fn acquired(&mut self, step: Step, sent_at: Instant) {
        match step {
            Step::Answer(acquired) => self.answer(Answer::Acquire(acquired)),
            Step::Write(Some(replace)) => {
                if replace.redates > 0 {
                    // The lease stands, and nobody was told of it yet.
                    self.lost_at.get_or_insert(sent_at);
                }
                self.next = Next::Replace(replace);
            }
            Step::Write(None) => self.next = Next::Write,
            Step::NewId => {
                self.next = Next::Write;
                self.ids_tried += 1;
                if self.ids_tried > ID_TRIES_MAX {
                    self.fail(StoreError::IdsExhausted);
                }
            }
        }
    }

    /// Whether it was told that another session's row has the id.
    pub fn needs_new_id(&self) -> bool {
        self.ids_tried > 0
    }

    fn answer(&mut self, answer: Answer) {
        self.outcome = Some(Ok(answer));
    }

    /// A packet that was sent then may have taken effect, and nobody knows. With the same owner token it
    /// is sent again.
    pub fn lost(&mut self, sent_at: Instant) {
        self.lost_at.get_or_insert(sent_at);
        if let Next::Delete(row) = &self.next {
            self.tried = Some(row.clone());
            self.next = Next::Read;
        }
    }

    /// A packet that was sent then is committed, but its answer cannot be told from others'.
    pub fn lose_among_others(&mut self, sent_at: Instant) {
        self.lost(sent_at);
        self.sharing = Sharing::Nothing;
    }

    /// Nothing was written, and it is not known whose fault that was: it begins anew, with a read if
    /// that can be its answer.
    pub fn restart(&mut self) {
        self.sharing = Sharing::Nothing;
        match self.operation {
            Operation::Renew(_) | Operation::Commit(_) | Operation::Release(_) => {}
            // After a lost packet its own lease would seem to be an earlier one.
            Operation::Acquire(..) if self.lost_at.is_some() => {}
            _ => self.next = Next::Read,
        }
    }

    /// Ends without an answer, but not without a word if something may have been written.
    pub fn fail(&mut self, error: StoreError) {
        self.outcome = Some(Err(match (self.lost_at, error) {
            // That nothing was written is not known here.
            (Some(_), StoreError::Unavailable(cause)) => StoreError::OutcomeUnknown(cause),
            (Some(_), StoreError::RowLocked) => {
                StoreError::OutcomeUnknown("then another program held a database lock".to_owned())
            }
            (_, error) => error,
        }));
    }

    pub fn finish(mut self, cause: &str) -> Result<Answer, StoreError> {
        if self.outcome.is_none() {
            let cause = if cause.is_empty() { "it answers too slowly" } else { cause };
            self.fail(StoreError::Unavailable(cause.to_owned()));
        }
        self.outcome.unwrap_or(Err(StoreError::Internal))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::{Id, OwnerToken, Session, TokenOrigin, Ttl};

    const OWNER: &str = "48210000000000000007";

    fn acquire() -> Operation {
        let id = |text| Id::new(text).unwrap();
        let acquire = Acquire {
            session: Session { id_device: id("bot1"), id_prospect: id("60123456789") },
            owner_token: OwnerToken::new(OWNER).unwrap(),
            origin: TokenOrigin::Callers,
            ttl: Ttl::new(30_000, 900_000).unwrap(),
            message_id: None,
        };
        Operation::Acquire(acquire, FirstPacket::Write)
    }

    /// A row of the owner that was granted at this time, by the clock that is 1,760,432,405 s.
    fn row(fencing_us: u64) -> Row {
        let stored = format!("2025-10-14 09:00:00.000000{fencing_us}{OWNER}");
        Row::new(7, stored.into(), Some(0), 1_760_432_405_000_000)
    }

    fn how(attempt: Attempt) -> &'static str {
        match attempt.finish("") {
            Ok(Answer::Acquire(Acquired::Granted(lease))) => lease.how.word(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lease_from_a_lost_packet_is_new_and_one_from_before_it_is_told_again() {
        let operation = acquire();
        let now_us = 1_760_432_405_000_000;
        // By the clock of the second packet, all of these were granted earlier.
        for (granted_us, expected) in [(now_us - 500_000, "new"), (now_us - 5_000_000, "again")] {
            let mut attempt = Attempt::new(&operation);
            let now = Instant::now();
            attempt.lost(now.checked_sub(Duration::from_secs(1)).unwrap());
            let read =
                Read { row: Some(row(granted_us)), began_us: now_us - 100, ..Read::default() };
            attempt.after_write(read, now);
            assert_eq!(how(attempt), expected);
        }
    }

    #[test]
    fn nobody_is_told_that_nothing_was_written_when_that_is_not_known() {
        let operation = acquire();
        for error in [StoreError::Unavailable("gone".to_owned()), StoreError::RowLocked] {
            let mut attempt = Attempt::new(&operation);
            attempt.lost(Instant::now());
            attempt.fail(error);
            let told = attempt.finish("").expect_err("it failed").to_string();
            assert!(told.contains("during the write"), "{told}");
            assert!(!told.contains("nothing was written"), "{told}");
        }
    }

    #[test]
    fn so_many_ids_are_tried_and_no_more() {
        let operation = acquire();
        let mut attempt = Attempt::new(&operation);
        for _ in 0..ID_TRIES_MAX {
            attempt.after_write(Read::default(), Instant::now());
            assert!(attempt.is_writing());
        }
        attempt.after_write(Read::default(), Instant::now());
        assert!(matches!(attempt.finish(""), Err(StoreError::IdsExhausted)));
    }
}
