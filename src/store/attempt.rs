//! The state of one operation in its batch: which packet comes next, and whether an earlier one may
//! have taken effect. [`crate::lease`] decides what rows mean; no connection is used here.

use std::time::Instant;

use super::operation::{Answer, FirstPacket, Operation, StoreError};
use crate::lease::{Acquired, ForceStep, Forced, Release, Replace, Row, Sent, Snapshot, Step};

/// Most ids that are tried for a new row: enough to find a free one if nine tenths are taken.
const ID_TRIES_MAX: u32 = 20;

/// Most packets that one operation may send; after that it is answered `unavailable`. No operation
/// needs half as many, unless a trigger undoes what it writes.
const PACKETS_MAX: u32 = 50;

/// The packet that an operation needs next.
pub enum Next {
    Read,
    Write,
    Replace(Replace),
    Delete(Row),
}

/// What an operation shares with the others of its batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// Statements with others of its kind.
    Statements,
    /// The packet. It has statements of its own there.
    Packet,
    /// Nothing. When a packet for several has failed, any of them may be the cause.
    Nothing,
}

/// An operation and how far it has come.
pub struct Attempt<'a> {
    pub operation: &'a Operation,
    pub next: Next,
    pub sharing: Sharing,
    /// Whether an acquire was sent as a single INSERT. If its count was not conclusive, later
    /// packets read the row.
    insert_tried: bool,
    /// When the first packet was sent that may have taken effect without an answer.
    lost_at: Option<Instant>,
    /// The row that such a packet was to delete.
    lost_delete: Option<Row>,
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
        // The ids of a forced release may be of any spelling, so they may equal another's.
        let is_forced = matches!(operation, Operation::Force(_));
        Self {
            operation,
            next,
            sharing: if is_forced { Sharing::Nothing } else { Sharing::Statements },
            insert_tried: false,
            lost_at: None,
            lost_delete: None,
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

    /// The row that the next packet replaces.
    pub fn replaced(&self) -> Option<&Replace> {
        match &self.next {
            Next::Replace(replaced) => Some(replaced),
            _ => None,
        }
    }

    /// The release, if the number of rows that it deletes is its answer.
    pub fn plain_release(&self) -> Option<&Release> {
        match self.operation {
            Operation::Release(release) if release.message.is_none() && self.lost_at.is_none() => {
                Some(release)
            }
            _ => None,
        }
    }

    /// Whether the count of a single INSERT may be the answer.
    pub fn is_plain_insert(&self) -> bool {
        let (Operation::Acquire(acquire, _), Next::Write) = (self.operation, &self.next) else {
            return false;
        };
        acquire.message_id.is_none() && self.lost_at.is_none() && !self.insert_tried
    }

    /// Whether the answer to the write is in the session's row.
    pub fn reads_row(&self) -> bool {
        self.keeps_row()
            || matches!(self.operation, Operation::Release(_)) && self.lost_at.is_some()
    }

    /// Whether a row that the write changes is still there after it, unless the message is answered.
    pub fn keeps_row(&self) -> bool {
        matches!(self.operation, Operation::Acquire(..) | Operation::Renew(_))
    }

    /// Counts a packet that has been answered.
    fn sent(&mut self, at: Instant) -> Sent {
        self.packets += 1;
        if self.packets > PACKETS_MAX {
            self.fail(self.outcome_unknown("too much contention"));
        }
        Sent { at, after_loss: self.lost_at.is_some() }
    }

    /// Decides after a packet that only read.
    pub fn after_read(&mut self, read: Snapshot, sent_at: Instant) {
        let sent = self.sent(sent_at);
        match self.operation {
            Operation::Acquire(acquire, _) => self.follow(acquire.after_read(read, sent)),
            Operation::Find(acquire) => self.answer(Answer::Find(acquire.find(read, sent))),
            Operation::Force(force) => match force.after_read(read, self.lost_delete.as_ref()) {
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

    /// Decides after a packet that wrote and was committed.
    pub fn after_write(&mut self, mut read: Snapshot, sent_at: Instant) {
        if let (Some(row), Some(lost_at)) = (&read.row, self.lost_at) {
            let since_us = u64::try_from(lost_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            read.began_us = row.clock_us.saturating_sub(since_us);
        }
        let sent = self.sent(sent_at);
        match self.operation {
            Operation::Acquire(acquire, _) => {
                self.follow(acquire.after_write(read, sent, self.replaced()));
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
                // The row changed since it was read.
                _ => {}
            },
            Operation::Find(_) | Operation::Read(_) => {}
        }
    }

    /// Decides after a single INSERT: `row` is the id and the fencing token that it wrote, if any.
    pub fn after_insert(&mut self, row: Option<(i64, u64)>, sent_at: Instant) {
        let sent = self.sent(sent_at);
        let Operation::Acquire(acquire, _) = self.operation else {
            return;
        };
        self.insert_tried = true;
        match row {
            Some((key, fencing_us)) => {
                let lease = acquire.after_insert(key, fencing_us, sent);
                self.answer(Answer::Acquire(Acquired::Granted(lease)));
            }
            None => self.next = Next::Read,
        }
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Answer(acquired) => self.answer(Answer::Acquire(acquired)),
            Step::Write(Some(replace)) => self.next = Next::Replace(replace),
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

    /// Whether an id that it tried belonged to another session's row.
    pub fn needs_new_id(&self) -> bool {
        self.ids_tried > 0
    }

    fn answer(&mut self, answer: Answer) {
        self.outcome = Some(Ok(answer));
    }

    /// Notes that a packet may have taken effect without an answer. It is sent again, with the same
    /// owner token.
    pub fn mark_lost(&mut self, sent_at: Instant) {
        self.lost_at.get_or_insert(sent_at);
        if let Next::Delete(row) = &self.next {
            self.lost_delete = Some(row.clone());
            self.next = Next::Read;
        }
    }

    /// Notes that a packet is committed, but that its reply to this operation cannot be told from
    /// the replies to others.
    pub fn mark_ambiguous(&mut self, sent_at: Instant) {
        self.mark_lost(sent_at);
        self.sharing = Sharing::Nothing;
    }

    /// Begins again, alone, after a failed packet that wrote nothing: any operation in it may be
    /// the cause. Begins with a read if the read can give the answer.
    pub fn restart(&mut self) {
        self.sharing = Sharing::Nothing;
        match self.operation {
            Operation::Renew(_) | Operation::Commit(_) | Operation::Release(_) => {}
            // A read would take the lease of the lost packet for an earlier one.
            Operation::Acquire(..) if self.lost_at.is_some() => {}
            _ => self.next = Next::Read,
        }
    }

    /// Ends with an error, which must not deny a write that may have taken effect.
    pub fn fail(&mut self, error: StoreError) {
        self.outcome = Some(Err(match (self.lost_at, error) {
            (Some(_), StoreError::Unavailable(cause) | StoreError::NotStorable(cause)) => {
                self.outcome_unknown(&cause)
            }
            (Some(_), StoreError::RowLocked) => {
                self.outcome_unknown("then another program held a database lock")
            }
            (_, error) => error,
        }));
    }

    fn outcome_unknown(&self, cause: &str) -> StoreError {
        let owner_token = match self.operation {
            Operation::Acquire(acquire, _) => Some(acquire.owner_token.clone()),
            _ => None,
        };
        StoreError::OutcomeUnknown(cause.to_owned(), owner_token)
    }

    /// The outcome. If there is none yet, time is up, and `cause` is the last error.
    pub fn finish(mut self, cause: &str) -> Result<Answer, StoreError> {
        if self.outcome.is_none() {
            let cause = if cause.is_empty() { "it answers too slowly" } else { cause };
            self.fail(StoreError::Unavailable(cause.to_owned()));
        }
        self.outcome.unwrap_or(Err(StoreError::Internal))
    }
}

/// Lets each of these operations begin again, alone.
pub(super) fn restart(attempts: &mut [&mut Attempt]) {
    for attempt in attempts {
        attempt.restart();
    }
}

/// Handles a packet that the database refused: a single operation fails, and each of several
/// continues alone.
pub(super) fn after_refusal(attempts: &mut [&mut Attempt], cause: &str) {
    match attempts {
        [attempt] if attempt.is_open() => attempt.fail(StoreError::Unavailable(cause.to_owned())),
        // The operations with an answer keep it.
        attempts => restart(attempts),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::cases::{self, NOW_US, OWNER};

    fn acquire() -> Operation {
        Operation::Acquire(cases::acquire(), FirstPacket::Write)
    }

    #[test]
    fn a_lease_of_a_lost_packet_is_new_and_an_older_one_is_granted_again() {
        let operation = acquire();
        for (granted_us, expected) in [(NOW_US - 500_000, "new"), (NOW_US - 5_000_000, "again")] {
            let mut attempt = Attempt::new(&operation);
            let now = Instant::now();
            attempt.mark_lost(now.checked_sub(Duration::from_secs(1)).unwrap());
            let row = cases::lease(OWNER, granted_us, 30_000);
            attempt.after_write(Snapshot { row, ..Snapshot::default() }, now);
            match attempt.finish("") {
                Ok(Answer::Acquire(Acquired::Granted(lease))) => {
                    assert_eq!(lease.how.word(), expected);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_error_after_a_lost_packet_does_not_say_that_nothing_was_written() {
        let operation = acquire();
        let gone = || "gone".to_owned();
        for error in [
            StoreError::Unavailable(gone()),
            StoreError::NotStorable(gone()),
            StoreError::RowLocked,
        ] {
            let mut attempt = Attempt::new(&operation);
            attempt.mark_lost(Instant::now());
            attempt.fail(error);
            let text = attempt.finish("").expect_err("it failed").to_string();
            assert!(text.contains("did not confirm the write"), "{text}");
            assert!(!text.contains("nothing was written"), "{text}");
        }
    }

    #[test]
    fn the_tries_for_a_free_id_are_limited() {
        let operation = acquire();
        let mut attempt = Attempt::new(&operation);
        for _ in 0..ID_TRIES_MAX {
            attempt.after_write(Snapshot::default(), Instant::now());
            assert!(attempt.is_writing());
        }
        attempt.after_write(Snapshot::default(), Instant::now());
        assert!(matches!(attempt.finish(""), Err(StoreError::IdsExhausted)));
    }
}
