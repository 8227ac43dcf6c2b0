//! One operation on its way to its answer: what was seen of its session decides what is written,
//! and what is seen after the write is the answer. No connection is used here.

use std::time::{Duration, Instant};

use crate::lease::{
    Acquired, Calendar, Committed, FencingToken, Forced, HOLD_MS, Holder, Holding, How, Lease,
    Message, MessageId, OwnerToken, Recalled, Record, Released, Renewed, RowVersion, Session,
    Stale, Stamp, Standing, TokenOrigin, Ttl, date_shift_us,
};

/// A crashed holder's row is left for so long after its expiry: until then, the next acquire finds
/// it and says `takeover`, which tells the bot that a worker died.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// Random ids that are tried when the table has none left to give: enough to find one free of a
/// table that is nine tenths full.
const ID_TRIES: u32 = 20;

/// So many of these are among the lowest ids, so that the counter can be reset.
const LOW_ID_TRIES: u32 = 8;

/// The lowest ids are one in so many: plenty, when there are two billion.
const LOW_IDS_SHARE: u64 = 1_000;

/// Something to do to one session's lease.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Take the lease.
    Acquire {
        /// Of this session.
        session: Session,
        /// For the worker that knows this token,
        owner_token: OwnerToken,
        /// which came from there.
        origin: TokenOrigin,
        /// For this long.
        ttl: Ttl,
        /// To answer this message, if it is not answered already.
        message_id: Option<MessageId>,
    },
    /// See whether this worker has the lease already, or its message is answered.
    Recall {
        /// Of this session.
        session: Session,
        /// The worker that knows this token.
        owner_token: OwnerToken,
        /// What it would ask for.
        ttl: Ttl,
        /// To answer this message.
        message_id: Option<MessageId>,
    },
    /// Record that a message is answered, as the one worker that may answer it.
    Commit {
        /// Of this session.
        session: Session,
        /// By the worker that knows this token.
        owner_token: OwnerToken,
        /// This message.
        message: Message,
    },
    /// Give the lease back.
    Release {
        /// Of this session.
        session: Session,
        /// By the worker that knows this token.
        owner_token: OwnerToken,
        /// And record that this message is answered.
        message: Option<Message>,
    },
    /// Give the lease a new expiry.
    Renew {
        /// Of this session.
        session: Session,
        /// By the worker that knows this token.
        owner_token: OwnerToken,
        /// From now on.
        ttl: Ttl,
        /// But never so that the lease is held for longer than this since its grant.
        max_hold_ms: u64,
    },
    /// Take back a lease that nobody could be told of.
    Withdraw {
        /// Of this session.
        session: Session,
        /// With this token, which we drew.
        owner_token: OwnerToken,
    },
    /// End the lease without being its owner: an operator's release.
    Force {
        /// Of this session.
        session: Session,
        /// Only this lease, if it is named.
        fencing_token: Option<FencingToken>,
    },
    /// Look who holds it.
    Look {
        /// This session.
        session: Session,
    },
}

impl Operation {
    /// The session it is about.
    #[must_use]
    pub fn session(&self) -> &Session {
        match self {
            Self::Acquire { session, .. }
            | Self::Recall { session, .. }
            | Self::Commit { session, .. }
            | Self::Release { session, .. }
            | Self::Renew { session, .. }
            | Self::Withdraw { session, .. }
            | Self::Force { session, .. }
            | Self::Look { session } => session,
        }
    }

    /// The owner token it comes with, if it does.
    #[must_use]
    pub fn owner_token(&self) -> Option<&OwnerToken> {
        match self {
            Self::Acquire { owner_token, .. }
            | Self::Recall { owner_token, .. }
            | Self::Commit { owner_token, .. }
            | Self::Release { owner_token, .. }
            | Self::Renew { owner_token, .. }
            | Self::Withdraw { owner_token, .. } => Some(owner_token),
            Self::Force { .. } | Self::Look { .. } => None,
        }
    }

    /// The message it is about, if it names one.
    #[must_use]
    pub fn message_id(&self) -> Option<&MessageId> {
        match self {
            Self::Acquire { message_id, .. } | Self::Recall { message_id, .. } => {
                message_id.as_ref()
            }
            Self::Commit { message, .. } => Some(&message.id),
            Self::Release { message, .. } => message.as_ref().map(|message| &message.id),
            Self::Renew { .. } | Self::Withdraw { .. } | Self::Force { .. } | Self::Look { .. } => {
                None
            }
        }
    }
}

/// What came of an [`Operation`] of the same name.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of an acquire.
    Acquire(Acquired),
    /// Of a recall.
    Recall(Recalled),
    /// Of a commit.
    Commit(Committed),
    /// Of a release.
    Release(Released),
    /// Of a renew.
    Renew(Renewed),
    /// Of a lease that was taken back, or is not there.
    Withdraw(Forced),
    /// Of a forced release.
    Force(Forced),
    /// Of a look: who holds the session, if anybody does.
    Look(Option<Holding>),
}

/// Why there is no answer. None of these says anything about who holds what.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// The database cannot be reached, or refused; nothing was written.
    Unavailable(String),
    /// Another program held a lock on the row or the table for longer than we wait; nothing was
    /// written.
    Locked,
    /// The table has no AUTO_INCREMENT id left, and no free one was found.
    IdsExhausted,
    /// The database vanished in the middle of a write and could not be asked what became of it.
    Unsettled(String),
    /// A bug of ours.
    Internal,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(cause) => write!(f, "the database is not available ({cause}); nothing was written, try again"),
            Self::Locked => f.write_str(
                "another program holds a database lock on this session's row or on the table; nothing was written, try again",
            ),
            Self::Internal => f.write_str("a bug in session-lock; its log has a line about it"),
            Self::IdsExhausted => f.write_str(
                "the lock table has no AUTO_INCREMENT id left; nothing was written; the operator can run \
                 ALTER TABLE ... AUTO_INCREMENT = 1 once no row has a high id",
            ),
            Self::Unsettled(cause) => write!(
                f,
                "the database vanished during the write ({cause}); repeat the same request with the same owner_token"
            ),
        }
    }
}

/// One session's row at one look.
#[derive(Clone)]
pub(crate) struct Seen {
    pub key: u64,
    pub stored: Vec<u8>,
    stamp: Stamp,
    /// Time until its expiry by the database's clock: negative when past, `None` for no date.
    remaining_us: Option<i64>,
    clock_us: u64,
}

impl Seen {
    pub fn new(key: u64, stored: Vec<u8>, age_us: Option<i64>, clock_us: u64) -> Self {
        let hold_us = i64::try_from(HOLD_MS * 1_000).expect("30 s fit");
        let stamp = Stamp::parse(&stored);
        let remaining_us = age_us.map(|age_us| hold_us.saturating_sub(age_us));
        Self {
            key,
            stored,
            stamp,
            remaining_us,
            clock_us,
        }
    }

    /// Its date, in seconds since 1970.
    fn date_s(&self) -> Option<i64> {
        let until_us = self.remaining_us?.saturating_add_unsigned(self.clock_us);
        Some(until_us / 1_000_000 - (HOLD_MS / 1_000).cast_signed())
    }

    /// How the table's dates relate to the clock, as far as this row tells.
    pub fn calendar(&self) -> Option<Calendar> {
        Calendar::learn(&self.stored, self.date_s()?)
    }

    /// Whether a crashed holder left it, so long ago that nobody is told of a takeover any more.
    pub fn is_forgotten(&self) -> bool {
        let past_us = self
            .remaining_us
            .and_then(|left_us| u64::try_from(-left_us).ok());
        matches!(self.stamp, Stamp::Lease { .. })
            && past_us.is_some_and(|past_us| Duration::from_micros(past_us) > FORGOTTEN_AFTER)
    }

    /// The row as it must be now, if nobody touched it since it was seen.
    pub fn aged(&self, looked_at: Instant) -> Self {
        let elapsed_us = u64::try_from(looked_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut row = self.clone();
        row.clock_us = row.clock_us.saturating_add(elapsed_us);
        row.remaining_us = row
            .remaining_us
            .map(|left_us| left_us.saturating_sub_unsigned(elapsed_us));
        row
    }

    /// Whether the other one is this row, and nobody touched it in between.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.key, &self.stored) == (other.key, &other.stored)
    }

    /// Time until its expiry; `None` once it is stale.
    pub fn remaining(&self) -> Option<Duration> {
        let left_us = self
            .remaining_us
            .and_then(|left_us| u64::try_from(left_us).ok());
        left_us
            .filter(|left_us| *left_us > 0)
            .map(Duration::from_micros)
    }

    /// Its expiry by the database's clock, in microseconds since 1970; the clock, once it is stale.
    fn expires_us(&self) -> u64 {
        let left_us = self.remaining().unwrap_or_default().as_micros();
        self.clock_us
            .saturating_add(u64::try_from(left_us).unwrap_or(u64::MAX))
    }

    pub fn holder(&self) -> Holder {
        match self.stamp {
            Stamp::Lease { fencing_token, .. } => {
                let held_ms = self.clock_us.saturating_sub(fencing_token.0) / 1_000;
                Holder::Leased {
                    fencing_token,
                    held_ms,
                }
            }
            Stamp::Foreign => Holder::Legacy,
        }
    }

    /// What it is once it holds nothing.
    fn stale(&self) -> Stale {
        match self.stamp {
            Stamp::Lease { .. } => Stale::Lease,
            Stamp::Foreign => Stale::Legacy,
        }
    }

    /// Who holds the session, if the row does; `looked_at` is when the look was sent.
    pub fn holding(&self, looked_at: Instant) -> Option<Holding> {
        let remaining = self.remaining()?;
        Some(Holding {
            expires: looked_at + remaining,
            holder: self.holder(),
            row: RowVersion::new(self.key, &self.stored),
        })
    }

    /// The lease in the row, for its owner's eyes.
    fn lease(&self, how: How, ttl: Ttl, looked_at: Instant) -> Option<Lease> {
        let Holding { expires, row, .. } = self.holding(looked_at)?;
        match self.stamp.clone() {
            Stamp::Lease {
                fencing_token,
                owner_token,
                ..
            } => Some(Lease {
                owner_token,
                fencing_token,
                how,
                ttl,
                expires,
                row,
            }),
            Stamp::Foreign => None,
        }
    }

    pub fn is_tentative(&self) -> bool {
        matches!(
            self.stamp,
            Stamp::Lease {
                standing: Standing::Tentative,
                ..
            }
        )
    }

    /// Whether it is still this holder's, however often it was renewed.
    fn is_held_by(&self, holder: Holder) -> bool {
        match (&self.stamp, holder) {
            (
                Stamp::Lease { fencing_token, .. },
                Holder::Leased {
                    fencing_token: held,
                    ..
                },
            ) => *fencing_token == held,
            (Stamp::Foreign, Holder::Legacy) => true,
            _ => false,
        }
    }

    fn has_fencing_token(&self, token: FencingToken) -> bool {
        matches!(&self.stamp, Stamp::Lease { fencing_token, .. } if *fencing_token == token)
    }

    fn is_owned_by(&self, token: &OwnerToken) -> bool {
        matches!(&self.stamp, Stamp::Lease { owner_token, .. } if owner_token == token)
    }
}

/// A write that a look calls for.
pub(crate) enum Write {
    Acquire {
        lease: Wanted,
        key: Key,
        seen: Option<Vec<u8>>,
        fencing_floor: u64,
        how: How,
    },
    /// Make a tentative lease firm.
    Confirm { key: u64, seen: Vec<u8> },
    Renew {
        owner_token: OwnerToken,
        ttl: Ttl,
        key: u64,
        seen: Vec<u8>,
        fencing_token: FencingToken,
        expires_us: u64,
        max_hold_ms: u64,
    },
    Commit {
        key: u64,
        seen: Vec<u8>,
        expires_us: u64,
    },
    Delete {
        key: u64,
        seen: Vec<u8>,
        holder: Holder,
    },
}

/// The lease that an acquire asks for.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub owner_token: OwnerToken,
    pub origin: TokenOrigin,
    pub ttl: Ttl,
}

/// The id of the row that an acquire writes.
#[derive(Clone, Copy)]
pub(crate) enum Key {
    /// The next one of the table's counter.
    Next,
    /// This one: of the row that it replaces, of one that is gone, or a random one when the counter is
    /// exhausted.
    Explicit(u64),
}

/// What the statements that write leases say of one.
#[derive(Clone, Copy)]
pub(crate) enum Claimed {
    /// It was written.
    Dated(Dated),
    /// It was not.
    Missed,
    /// It was perhaps; if so, with this fencing token.
    Unclear(Option<FencingToken>),
}

/// A lease that was written.
#[derive(Clone, Copy)]
pub(crate) struct Dated {
    pub key: u64,
    pub fencing_token: FencingToken,
}

/// What became of the last write.
#[derive(Clone, Copy)]
enum Sent {
    Nothing,
    /// It was committed, and changed something.
    Done(Effect),
    /// It was committed, and changed nothing: the row was not what had been seen.
    Void,
    /// The same, and no look in the same transaction shows why.
    Missed,
    /// The connection died under it, or its statements do not tell.
    Unknown(Effect),
}

/// What a planned write rests on.
#[derive(Clone, Copy)]
enum Basis {
    Look,
    /// What is remembered. That it was out of date means nothing.
    Memory,
}

/// What a write does if it takes effect.
#[derive(Clone, Copy)]
pub(crate) enum Effect {
    /// With this fencing token, if it is known.
    Granted(How, Option<FencingToken>),
    Confirmed,
    Renewed,
    Committed,
    Ended(Holder),
}

/// One operation on its way to its answer.
pub(crate) struct Task<'a> {
    pub operation: &'a Operation,
    /// What is to be written, by the last look.
    pub write: Option<Write>,
    sent: Sent,
    /// When the last write was sent.
    sent_at: Instant,
    basis: Basis,
    /// Whether others may be in its packets.
    pub company: Company,
    /// The key of a row that is gone, for an acquire's new row, as long as it has no row.
    pub spare_key: Option<u64>,
    /// The id that an acquire writes if the session has no row, and there is no such key.
    new_key: Key,
    /// The row that it deleted.
    pub deleted_key: Option<u64>,
    /// What its first write rested on.
    began_with: Basis,
    ids_tried: u32,
    outcome: Option<Result<Answer, StoreError>>,
    /// The row of its lease, as it was seen last, and when.
    pub lease_row: Option<(Seen, Instant)>,
}

/// Whether an operation goes to the database together with others.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Company {
    Welcome,
    /// Something went wrong with them together: it goes alone, to see whose fault it was.
    Alone,
}

/// What one look showed.
#[derive(Default)]
pub(crate) struct Look {
    pub row: Option<Seen>,
    pub record: Option<SeenRecord>,
}

/// A message's record at one look.
pub(crate) struct SeenRecord {
    owner_token: Vec<u8>,
    record: Record,
}

impl SeenRecord {
    fn is_by(&self, owner_token: &OwnerToken) -> bool {
        self.owner_token == owner_token.secret().as_bytes()
    }

    pub fn new(owner_token: Vec<u8>, age_us: i64, result: Option<Vec<u8>>) -> Self {
        let committed_ago = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
        // The API takes nothing but JSON, which is UTF-8.
        let result = result.and_then(|result| String::from_utf8(result).ok());
        Self {
            owner_token,
            record: Record {
                committed_ago,
                result,
            },
        }
    }
}

impl<'a> Task<'a> {
    pub fn new(operation: &'a Operation, now: Instant) -> Self {
        Self {
            operation,
            write: None,
            sent: Sent::Nothing,
            sent_at: now,
            basis: Basis::Look,
            company: match operation {
                // Its ids are taken as stored, and may compare like another's of the batch.
                Operation::Force { .. } => Company::Alone,
                _ => Company::Welcome,
            },
            spare_key: None,
            new_key: Key::Next,
            deleted_key: None,
            began_with: Basis::Look,
            ids_tried: 0,
            outcome: None,
            lease_row: None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.outcome.is_none()
    }

    /// Nobody knows whether the write took effect.
    pub fn lose_write(&mut self) {
        if let Some(write) = self.write.take() {
            self.sent = Sent::Unknown(write.effect());
            // It may be in the table now.
            self.spare_key = None;
        }
        self.drop_write();
    }

    /// The acquire's write was committed, and what became of it is to be looked at.
    pub fn doubt_write(&mut self, claimed: Claimed) {
        self.sent = match (&self.write, claimed) {
            (Some(write), Claimed::Dated(_) | Claimed::Unclear(_)) => {
                Sent::Unknown(write.effect().with(claimed))
            }
            _ => Sent::Missed,
        };
        self.drop_write();
    }

    /// There is no write now, and the next one rests on a look.
    pub fn drop_write(&mut self) {
        self.write = None;
        self.basis = Basis::Look;
    }

    /// What is remembered is not used after all.
    pub fn drop_memory(&mut self) {
        self.drop_write();
        self.began_with = Basis::Look;
    }

    /// Whether the planned write rests on memory alone.
    pub fn is_remembered(&self) -> bool {
        self.write.is_some() && matches!(self.basis, Basis::Memory)
    }

    /// The row that the planned write replaces, changes or deletes.
    pub fn written_key(&self) -> Option<u64> {
        match self.write.as_ref()? {
            Write::Acquire { seen: None, .. } | Write::Acquire { key: Key::Next, .. } => None,
            Write::Acquire {
                key: Key::Explicit(key),
                ..
            }
            | Write::Confirm { key, .. }
            | Write::Renew { key, .. }
            | Write::Commit { key, .. }
            | Write::Delete { key, .. } => Some(*key),
        }
    }

    pub fn finish(mut self, cause: &str) -> Result<Answer, StoreError> {
        if self.outcome.is_none() {
            let cause = if cause.is_empty() {
                "too much contention"
            } else {
                cause
            };
            self.fail(StoreError::Unavailable(cause.to_owned()));
        }
        self.outcome.unwrap_or(Err(StoreError::Internal))
    }

    /// Ends without an answer, but not without a word if something may have been written.
    pub fn fail(&mut self, error: StoreError) {
        // It may be what others hold a lock on.
        self.spare_key = None;
        self.outcome = Some(Err(match (self.sent, error) {
            // That nothing was written is not known here.
            (Sent::Done(_) | Sent::Unknown(_), StoreError::Unavailable(cause)) => {
                StoreError::Unsettled(cause)
            }
            (Sent::Done(_) | Sent::Unknown(_), StoreError::Locked) => {
                StoreError::Unsettled("then another program held a database lock".to_owned())
            }
            (_, error) => error,
        }));
    }

    /// The write, sent at this time, was committed, and changed this many rows; if it claims, this
    /// became of it.
    pub fn wrote(&mut self, rows: u64, claimed: Claimed, sent_at: Instant) {
        let Some(write) = self.write.take() else {
            return;
        };
        self.sent_at = sent_at;
        if let (Write::Delete { key, .. }, 1..) = (&write, rows) {
            self.deleted_key = Some(*key);
        }
        let effect = write.effect().with(claimed);
        // The rows are those of all who claim.
        let is_missed = matches!(claimed, Claimed::Missed);
        self.sent = match self.basis {
            _ if rows > 0 && !is_missed => Sent::Done(effect),
            Basis::Look if !matches!(write, Write::Confirm { .. }) => Sent::Void,
            _ => Sent::Nothing,
        };
        self.basis = Basis::Look;
    }

    /// Whether it takes the lease, for the first time: no earlier try may have.
    pub fn first_acquires(&self) -> bool {
        matches!(
            (&self.write, self.sent),
            (Some(Write::Acquire { .. }), Sent::Nothing)
        )
    }

    /// The row that the planned acquire became, as a look would have shown it when it was dated.
    pub fn dated_row(&self, dated: Dated, calendar: Calendar) -> Option<Seen> {
        let Some(Write::Acquire {
            lease,
            fencing_floor,
            ..
        }) = &self.write
        else {
            return None;
        };
        let Dated { key, fencing_token } = dated;
        let clock_us = fencing_token.0;
        let shifted_us = clock_us.checked_add_signed(date_shift_us(lease.ttl.as_ms()))?;
        // A token that had to be raised does not tell the time; and it may be a microsecond late,
        // which makes another date of a whole second.
        if clock_us <= fencing_floor + 1 || shifted_us.is_multiple_of(1_000_000) {
            return None;
        }
        let date_s = (shifted_us / 1_000_000).cast_signed();
        let stored = calendar.stored(date_s, fencing_token, &lease.owner_token)?;
        let age_us = clock_us.cast_signed() - date_s * 1_000_000;
        Some(Seen::new(key, stored, Some(age_us), clock_us))
    }

    /// Whether all there is to know of its write is whether the row is gone.
    pub fn only_deletes(&self) -> bool {
        matches!(self.write, Some(Write::Delete { .. })) && self.operation.message_id().is_none()
    }

    /// The write that follows from what is remembered. An answer never does.
    pub fn plan(&mut self, remembered: Look, now: Instant, max_key: u64) {
        self.basis = Basis::Memory;
        self.decide(remembered, now, max_key);
        self.outcome = None;
        if self.write.is_none() {
            self.basis = Basis::Look;
        }
        self.began_with = self.basis;
    }

    /// Whether a session was remembered to be free, and was not.
    pub fn was_misled(&self) -> bool {
        matches!(self.began_with, Basis::Memory)
            && matches!(self.outcome, Some(Ok(Answer::Acquire(_))))
            && self.inserted_key().is_none()
    }

    /// Whether another program's lock was in its way to the end.
    pub fn is_locked(&self) -> bool {
        matches!(self.outcome, Some(Err(StoreError::Locked)))
    }

    /// The row that it inserted.
    pub fn inserted_key(&self) -> Option<u64> {
        match (&self.outcome, &self.lease_row) {
            (Some(Ok(Answer::Acquire(Acquired::Granted(lease)))), Some((row, _)))
                if lease.how == How::New =>
            {
                Some(row.key)
            }
            _ => None,
        }
    }

    /// Either the answer or the next write, from what was seen.
    pub fn decide(&mut self, look: Look, looked_at: Instant, max_key: u64) {
        let Look { row: seen, record } = look;
        let own = |seen: Option<Seen>, token| seen.filter(|row| row.is_owned_by(token));
        let answer = match self.operation {
            Operation::Acquire {
                owner_token,
                origin,
                ttl,
                ..
            } => {
                let wanted = Wanted {
                    owner_token: owner_token.clone(),
                    origin: *origin,
                    ttl: *ttl,
                };
                let acquired = match record {
                    Some(SeenRecord { record, .. }) => Some(Acquired::Duplicate(record)),
                    None => self.decide_acquire(seen, looked_at, wanted, max_key),
                };
                acquired.map(Answer::Acquire)
            }
            Operation::Recall {
                owner_token, ttl, ..
            } => {
                let recalled = match (record, own(seen, owner_token)) {
                    (Some(SeenRecord { record, .. }), _) => Some(Recalled::Duplicate(record)),
                    (None, Some(row)) if row.remaining().is_some() => {
                        self.decide_again(row, *ttl, looked_at).map(Recalled::Lease)
                    }
                    (None, _) => Some(Recalled::Nothing),
                };
                recalled.map(Answer::Recall)
            }
            Operation::Commit { owner_token, .. } => self
                .decide_commit(own(seen, owner_token), record, looked_at, owner_token)
                .map(Answer::Commit),
            Operation::Release {
                owner_token,
                message,
                ..
            } => {
                let is_recorded = record.is_some_and(|record| record.is_by(owner_token));
                self.decide_end(own(seen, owner_token)).map(|ended| {
                    Answer::Release(match (ended, self.sent) {
                        // Gone, but not by us: we would have left a record.
                        (Forced::Released(_), Sent::Unknown(_))
                            if message.is_some() && !is_recorded =>
                        {
                            Released::Lost
                        }
                        (Forced::Released(holder), _) => Released::Released(holder),
                        (Forced::NotHeld, _) => Released::Lost,
                    })
                })
            }
            Operation::Renew {
                owner_token,
                ttl,
                max_hold_ms,
                ..
            } => self
                .decide_renew(own(seen, owner_token), looked_at, *ttl, *max_hold_ms)
                .map(Answer::Renew),
            Operation::Withdraw { owner_token, .. } => {
                let meant = own(seen, owner_token).filter(Seen::is_tentative);
                self.decide_end(meant).map(Answer::Withdraw)
            }
            Operation::Force {
                fencing_token: only,
                ..
            } => {
                let meant = seen.filter(|row| match (only, &row.stamp) {
                    (None, _) => true,
                    (Some(only), Stamp::Lease { fencing_token, .. }) => only == fencing_token,
                    (Some(_), Stamp::Foreign) => false,
                });
                self.decide_end(meant).map(Answer::Force)
            }
            Operation::Look { .. } => {
                Some(Answer::Look(seen.and_then(|row| row.holding(looked_at))))
            }
        };
        if let Some(answer) = answer {
            self.outcome = Some(Ok(answer));
        }
    }

    fn decide_commit(
        &mut self,
        own: Option<Seen>,
        record: Option<SeenRecord>,
        looked_at: Instant,
        owner_token: &OwnerToken,
    ) -> Option<Committed> {
        match (record, own) {
            (Some(record), own) if record.is_by(owner_token) => {
                // A tentative one is remembered where it was granted only.
                let is_ours = matches!(self.sent, Sent::Done(Effect::Committed));
                let own = own.filter(|row| is_ours || !row.is_tentative());
                self.lease_row = own.map(|row| (row, looked_at));
                Some(match self.sent {
                    Sent::Done(Effect::Committed) | Sent::Unknown(Effect::Committed) => {
                        Committed::New
                    }
                    _ => Committed::Again,
                })
            }
            (Some(SeenRecord { record, .. }), _) => Some(Committed::Duplicate(record)),
            (None, Some(row))
                if row.remaining().is_some()
                    && row.is_tentative()
                    && matches!(self.basis, Basis::Look) =>
            {
                self.write = Some(row.confirm());
                None
            }
            (None, Some(row)) if row.remaining().is_some() => {
                self.write = Some(Write::Commit {
                    expires_us: row.expires_us(),
                    key: row.key,
                    seen: row.stored,
                });
                None
            }
            (None, _) => Some(Committed::Lost),
        }
    }

    fn decide_acquire(
        &mut self,
        seen: Option<Seen>,
        looked_at: Instant,
        lease: Wanted,
        max_key: u64,
    ) -> Option<Acquired> {
        let ttl = lease.ttl;
        let Some(row) = seen else {
            // Nothing was in the way, and yet nothing was written.
            match self.sent {
                // Another row has its key.
                Sent::Void | Sent::Missed if self.spare_key.is_some() => self.spare_key = None,
                // MySQL's word for "no id".
                Sent::Void => self.try_random_id(max_key),
                _ => {}
            }
            let key = self.spare_key.map_or(self.new_key, Key::Explicit);
            if self.is_open() {
                self.write = Some(Write::Acquire {
                    lease,
                    key,
                    seen: None,
                    fencing_floor: 0,
                    how: How::New,
                });
            }
            return None;
        };
        self.spare_key = self.spare_key.filter(|key| *key != row.key);
        let Some(holding) = row.holding(looked_at) else {
            let how = How::Takeover(row.stale());
            self.write = Some(row.replace(lease, how));
            return None;
        };
        if !row.is_owned_by(&lease.owner_token) {
            return Some(Acquired::Held(holding));
        }
        let how = match self.sent {
            // A tentative lease of a caller's token is not the one that was written for it here.
            Sent::Done(Effect::Granted(how, fencing_token))
            | Sent::Unknown(Effect::Granted(how, fencing_token))
                if (lease.origin == TokenOrigin::Ours || !row.is_tentative())
                    && fencing_token.is_none_or(|token| row.has_fencing_token(token)) =>
            {
                how
            }
            _ => {
                let again = self.decide_again(row, ttl, looked_at);
                return again.map(Acquired::Granted);
            }
        };
        // The stored expiry is rounded up; what was asked for is the honest promise.
        let promised = self.sent_at + ttl.as_duration();
        let mut granted = row.lease(how, ttl, looked_at)?;
        granted.expires = granted.expires.min(promised);
        if granted.is_worn() {
            // The write waited for a lock; nobody was told of this lease yet, so it starts afresh.
            self.write = Some(row.replace(lease, how));
            return None;
        }
        self.lease_row = Some((row, looked_at));
        Some(Acquired::Granted(granted))
    }

    /// The lease in this row, for its owner who asks again: made firm first, so that whoever wrote
    /// it does not take it back.
    fn decide_again(&mut self, row: Seen, ttl: Ttl, looked_at: Instant) -> Option<Lease> {
        if row.is_tentative() {
            self.write = Some(row.confirm());
            return None;
        }
        let lease = row.lease(How::Again, ttl, looked_at);
        self.lease_row = Some((row, looked_at));
        lease
    }

    fn decide_renew(
        &mut self,
        own: Option<Seen>,
        looked_at: Instant,
        ttl: Ttl,
        max_hold_ms: u64,
    ) -> Option<Renewed> {
        let Some(row) = own else {
            return Some(Renewed::Lost);
        };
        let Stamp::Lease {
            fencing_token,
            owner_token,
            ..
        } = row.stamp.clone()
        else {
            return Some(Renewed::Lost);
        };
        let held_ms = row.clock_us.saturating_sub(fencing_token.0) / 1_000;
        let Some(ttl) = ttl.cut_to(max_hold_ms.saturating_sub(held_ms)) else {
            return Some(Renewed::MaxHold);
        };
        let Some(remaining) = row.remaining() else {
            return Some(Renewed::Lost);
        };
        // The row says it, whoever wrote it: this renew, or one like it at the same time, which
        // makes a second write of the same text no write at all.
        let expires = looked_at + remaining;
        let wanted = self.sent_at + ttl.as_duration();
        let is_renewed = match self.sent {
            Sent::Done(_) => true,
            Sent::Void | Sent::Unknown(_) => expires >= wanted && !row.is_tentative(),
            Sent::Nothing | Sent::Missed => false,
        };
        if is_renewed {
            self.lease_row = Some((row, looked_at));
            return Some(Renewed::Renewed {
                fencing_token,
                expires: expires.min(wanted),
            });
        }
        self.write = Some(Write::Renew {
            owner_token,
            ttl,
            expires_us: row.expires_us(),
            key: row.key,
            seen: row.stored,
            fencing_token,
            max_hold_ms,
        });
        None
    }

    /// Ends the lease in a row that is meant to be ended: who held it, or that nobody did.
    fn decide_end(&mut self, meant: Option<Seen>) -> Option<Forced> {
        match (self.sent, meant) {
            (Sent::Done(Effect::Ended(holder)), _)
            | (Sent::Unknown(Effect::Ended(holder)), None) => Some(Forced::Released(holder)),
            // The lease that was to end is gone; this is the next one, which nobody meant.
            (Sent::Unknown(Effect::Ended(holder)), Some(row)) if !row.is_held_by(holder) => {
                Some(Forced::Released(holder))
            }
            (_, Some(row)) if row.remaining().is_some() => {
                let holder = row.holder();
                self.write = Some(Write::Delete {
                    key: row.key,
                    seen: row.stored,
                    holder,
                });
                None
            }
            _ => Some(Forced::NotHeld),
        }
    }

    /// Any id will do when the counter has none left, if only its row is free.
    pub fn try_random_id(&mut self, max_key: u64) {
        self.ids_tried += 1;
        if self.ids_tried > ID_TRIES {
            return self.fail(StoreError::IdsExhausted);
        }
        let mut bytes = [0; 8];
        if getrandom::fill(&mut bytes).is_ok() {
            // Low ones first: they keep the counter's reset possible, which the operator is told of.
            let among = match self.ids_tried {
                0..=LOW_ID_TRIES => max_key / LOW_IDS_SHARE,
                _ => max_key,
            };
            self.new_key = Key::Explicit(1 + u64::from_ne_bytes(bytes) % among.max(1));
        }
    }
}

impl Seen {
    /// The write that makes this lease firm.
    fn confirm(self) -> Write {
        let (key, seen) = (self.key, self.stored);
        Write::Confirm { key, seen }
    }

    /// The write that puts a lease in this row's place.
    fn replace(self, lease: Wanted, how: How) -> Write {
        let fencing_floor = match self.stamp {
            Stamp::Lease { fencing_token, .. } => fencing_token.0 + 1,
            Stamp::Foreign => 0,
        };
        let (key, seen) = (Key::Explicit(self.key), Some(self.stored));
        Write::Acquire {
            lease,
            key,
            seen,
            fencing_floor,
            how,
        }
    }
}

impl Effect {
    /// With the fencing token that the statements say.
    fn with(self, claimed: Claimed) -> Self {
        match (self, claimed) {
            (Self::Granted(how, _), Claimed::Dated(dated)) => {
                Self::Granted(how, Some(dated.fencing_token))
            }
            (Self::Granted(how, _), Claimed::Unclear(fencing_token)) => {
                Self::Granted(how, fencing_token)
            }
            (effect, _) => effect,
        }
    }
}

impl Write {
    fn effect(&self) -> Effect {
        match self {
            Self::Acquire { how, .. } => Effect::Granted(*how, None),
            Self::Confirm { .. } => Effect::Confirmed,
            Self::Renew { .. } => Effect::Renewed,
            Self::Commit { .. } => Effect::Committed,
            Self::Delete { holder, .. } => Effect::Ended(*holder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Id;

    const OWNER: &str = "48210000000000000007";
    const MAX_KEY: u64 = 1_000_000;
    const UNCLEAR: Claimed = Claimed::Unclear(None);

    fn session() -> Session {
        let id = |text: &str| Id::new(text).unwrap();
        Session {
            id_device: id("bot1"),
            id_prospect: id("60123456789"),
        }
    }

    fn owner_token() -> OwnerToken {
        OwnerToken::new(OWNER).unwrap()
    }

    fn ttl(ms: u64) -> Ttl {
        Ttl::new(ms, u64::MAX).unwrap()
    }

    fn message() -> Message {
        Message {
            id: MessageId::new("wamid.1").unwrap(),
            result: None,
        }
    }

    fn acquire() -> Operation {
        Operation::Acquire {
            session: session(),
            owner_token: owner_token(),
            origin: TokenOrigin::Callers,
            ttl: ttl(30_000),
            message_id: None,
        }
    }

    fn release(message: Option<Message>) -> Operation {
        Operation::Release {
            session: session(),
            owner_token: owner_token(),
            message,
        }
    }

    /// The owner's row at a look that finds it dated so long ago.
    fn row(standing: char, age_ms: i64) -> Look {
        let stored = format!("2025-10-14 09:00:00.00000{standing}1760432400123456{OWNER}");
        let seen = Seen::new(
            7,
            stored.into(),
            Some(age_ms * 1_000),
            1_760_432_405_000_000,
        );
        Look {
            row: Some(seen),
            record: None,
        }
    }

    const TENTATIVE: char = '0';
    const FIRM: char = '1';

    fn record(by: &str) -> Look {
        Look {
            row: None,
            record: Some(SeenRecord::new(by.into(), 0, None)),
        }
    }

    fn decide(task: &mut Task, look: Look) {
        task.decide(look, Instant::now(), MAX_KEY);
    }

    fn answer(task: Task) -> Answer {
        task.finish("").expect("it has its answer")
    }

    /// What is told if this was seen before a write whose outcome is not known, and that after it.
    fn after_lost_write(operation: &Operation, before: Look, after: Look) -> Answer {
        let mut task = Task::new(operation, Instant::now());
        decide(&mut task, before);
        assert!(task.write.is_some());
        task.lose_write();
        decide(&mut task, after);
        answer(task)
    }

    #[test]
    fn a_row_that_is_gone_after_a_lost_release_was_released_by_it_unless_its_record_is_missing() {
        let told = |message, after| {
            let Answer::Release(released) =
                after_lost_write(&release(message), row(FIRM, 0), after)
            else {
                panic!("of a release");
            };
            matches!(released, Released::Released(_))
        };
        assert!(told(None, Look::default()));
        assert!(told(Some(message()), record(OWNER)));
        assert!(!told(Some(message()), record("99990000000000000007")));
        assert!(!told(Some(message()), Look::default()));
    }

    #[test]
    fn a_forced_release_whose_answer_was_lost_ends_the_same_lease_only() {
        let force = Operation::Force {
            session: session(),
            fencing_token: None,
        };
        let another = |stored: &str| Look {
            row: Some(Seen::new(8, stored.into(), Some(0), 1_760_432_405_000_000)),
            record: None,
        };
        for after in [
            another("2025-10-14 09:00:00.000000176043240012345848210000000000000008"),
            another("2025-10-14 09:00:00"),
            Look::default(),
        ] {
            let told = after_lost_write(&force, row(FIRM, 0), after);
            assert!(matches!(told, Answer::Force(Forced::Released(_))));
        }
        // Renewed meanwhile, or as it was.
        for (before, after) in [
            (row(FIRM, 0), row(FIRM, -10_000)),
            (
                another("2025-10-14 09:00:00"),
                another("2025-10-14 09:00:00"),
            ),
        ] {
            let mut task = Task::new(&force, Instant::now());
            decide(&mut task, before);
            task.lose_write();
            decide(&mut task, after);
            assert!(matches!(task.write, Some(Write::Delete { .. })));
        }
    }

    #[test]
    fn a_key_is_left_over_unless_its_row_is_or_may_be_there() {
        /// The key of the row that `row` shows.
        const ITS_KEY: u64 = 7;
        let acquire = acquire();
        let left_over = |key, happens: &dyn Fn(&mut Task)| {
            let mut task = Task::new(&acquire, Instant::now());
            task.spare_key = Some(key);
            task.plan(Look::default(), Instant::now(), MAX_KEY);
            happens(&mut task);
            task.spare_key
        };
        let granted = |task: &mut Task| {
            task.wrote(1, UNCLEAR, Instant::now());
            decide(task, row(FIRM, 0));
        };
        assert_eq!(left_over(ITS_KEY, &granted), None);
        assert_eq!(left_over(8, &granted), Some(8), "another row was taken");
        let is_in_the_way = |task: &mut Task| {
            task.doubt_write(Claimed::Missed);
            decide(task, Look::default());
        };
        assert_eq!(left_over(8, &is_in_the_way), None);
        assert_eq!(
            left_over(8, &|task| task.doubt_write(Claimed::Missed)),
            Some(8)
        );
        assert_eq!(left_over(8, &|task| task.doubt_write(UNCLEAR)), Some(8));
        assert_eq!(left_over(8, &|task| task.lose_write()), None);
        assert_eq!(left_over(8, &|task| task.fail(StoreError::Locked)), None);
    }

    #[test]
    fn a_row_is_deleted_by_a_write_that_changed_one() {
        let release = release(None);
        let deleted = |rows| {
            let mut task = Task::new(&release, Instant::now());
            decide(&mut task, row(FIRM, 0));
            task.wrote(rows, UNCLEAR, Instant::now());
            task.deleted_key
        };
        assert_eq!((deleted(0), deleted(1)), (None, Some(7)));
    }

    #[test]
    fn a_lease_with_another_fencing_token_than_was_written_is_told_again() {
        let acquire = acquire();
        let told = |claimed, committed: fn(&mut Task, Claimed)| {
            let mut task = Task::new(&acquire, Instant::now());
            decide(&mut task, Look::default());
            committed(&mut task, claimed);
            decide(&mut task, row(FIRM, 0));
            let Answer::Acquire(Acquired::Granted(lease)) = answer(task) else {
                panic!("granted")
            };
            lease.how
        };
        let with = |fencing_token| Claimed::Unclear(Some(FencingToken(fencing_token)));
        let doubted: fn(&mut Task, Claimed) = |task, claimed| task.doubt_write(claimed);
        let looked_at: fn(&mut Task, Claimed) = |task, claimed| {
            // Two: others of its batch were written.
            task.wrote(2, claimed, Instant::now());
        };
        for committed in [doubted, looked_at] {
            assert_eq!(told(with(1_760_432_400_123_456), committed), How::New);
            assert_eq!(told(with(1_760_432_400_123_458), committed), How::Again);
            assert_eq!(told(Claimed::Missed, committed), How::Again);
            assert_eq!(told(UNCLEAR, committed), How::New);
        }
    }

    #[test]
    fn a_tentative_lease_after_a_lost_write_for_a_callers_token_is_made_firm_first() {
        let acquire = acquire();
        let mut task = Task::new(&acquire, Instant::now());
        decide(&mut task, Look::default());
        task.lose_write();
        decide(&mut task, row(TENTATIVE, 0));
        assert!(matches!(task.write, Some(Write::Confirm { .. })));
    }

    #[test]
    fn a_lost_renew_that_the_row_does_not_show_is_written_again() {
        let renew = Operation::Renew {
            session: session(),
            owner_token: owner_token(),
            ttl: ttl(60_000),
            max_hold_ms: 900_000,
        };
        let mut task = Task::new(&renew, Instant::now());
        for (standing, age_ms) in [(FIRM, 10_000), (FIRM, 10_000), (TENTATIVE, -40_000)] {
            decide(&mut task, row(standing, age_ms));
            assert!(task.is_open() && matches!(task.write, Some(Write::Renew { .. })));
            task.lose_write();
        }
        decide(&mut task, row(FIRM, -40_000));
        assert!(matches!(
            answer(task),
            Answer::Renew(Renewed::Renewed { .. })
        ));
    }

    #[test]
    fn nobody_has_an_expired_lease_already() {
        let recall = Operation::Recall {
            session: session(),
            owner_token: owner_token(),
            ttl: ttl(30_000),
            message_id: None,
        };
        let mut task = Task::new(&recall, Instant::now());
        decide(&mut task, row(FIRM, 31_000));
        assert!(matches!(answer(task), Answer::Recall(Recalled::Nothing)));
    }

    #[test]
    fn a_lease_that_vanished_before_it_was_firm_is_acquired_under_the_next_id() {
        let acquire = acquire();
        let mut task = Task::new(&acquire, Instant::now());
        decide(&mut task, row(TENTATIVE, 0));
        assert!(matches!(task.write, Some(Write::Confirm { .. })));
        task.wrote(0, UNCLEAR, Instant::now());
        decide(&mut task, Look::default());
        let next = |write: &Write| matches!(write, Write::Acquire { key: Key::Next, .. });
        assert!(task.write.as_ref().is_some_and(next));
    }

    #[test]
    fn a_tentative_lease_is_made_firm_before_it_commits_and_is_remembered_where_it_was_granted() {
        let commit = Operation::Commit {
            session: session(),
            owner_token: owner_token(),
            message: message(),
        };
        let mut task = Task::new(&commit, Instant::now());
        decide(&mut task, row(TENTATIVE, 0));
        assert!(matches!(task.write, Some(Write::Confirm { .. })));
        let recorded = |standing| Look {
            row: row(standing, 0).row,
            ..record(OWNER)
        };
        for (standing, is_remembered) in [(FIRM, true), (TENTATIVE, false)] {
            let mut task = Task::new(&commit, Instant::now());
            decide(&mut task, recorded(standing));
            assert_eq!(task.lease_row.is_some(), is_remembered);
            assert!(matches!(answer(task), Answer::Commit(Committed::Again)));
        }
        for standing in [FIRM, TENTATIVE] {
            let mut task = Task::new(&commit, Instant::now());
            task.plan(row(standing, 0), Instant::now(), MAX_KEY);
            assert!(matches!(task.write, Some(Write::Commit { .. })));
            task.wrote(1, UNCLEAR, Instant::now());
            decide(&mut task, recorded(standing));
            assert!(task.lease_row.is_some());
            assert!(matches!(answer(task), Answer::Commit(Committed::New)));
        }
    }

    #[test]
    fn a_fencing_token_does_not_tell_the_time_if_it_may_have_been_raised() {
        let acquire = acquire();
        let mut task = Task::new(&acquire, Instant::now());
        decide(&mut task, row(FIRM, 31_000));
        let calendar = Calendar::learn(b"2025-10-14 09:00:00", 1_760_432_400).unwrap();
        let dated_row = |fencing_us| {
            let fencing_token = FencingToken(fencing_us);
            task.dated_row(
                Dated {
                    key: 7,
                    fencing_token,
                },
                calendar,
            )
        };
        assert!(dated_row(1_760_432_400_123_457).is_none());
        assert!(dated_row(1_760_432_400_123_458).is_none());
        // The clock may have been a whole second, which needs no rounding.
        assert!(dated_row(1_760_432_405_000_001).is_none());
        let row = dated_row(1_760_432_405_000_003).unwrap();
        let stored = format!("2025-10-14 09:00:06.0000001760432405000003{OWNER}");
        assert_eq!(row.stored, stored.as_bytes());
        assert_eq!(row.remaining(), Some(Duration::from_micros(30_999_997)));
        assert_eq!(row.calendar(), Some(calendar));
    }

    #[test]
    fn what_is_remembered_is_no_answer() {
        let release = release(None);
        let mut task = Task::new(&release, Instant::now());
        task.plan(row(FIRM, 31_000), Instant::now(), MAX_KEY);
        assert!(task.is_open() && task.write.is_none());
    }

    #[test]
    fn nobody_is_told_that_nothing_was_written_when_that_is_not_known() {
        let acquire = acquire();
        for error in [
            StoreError::Unavailable("gone".to_owned()),
            StoreError::Locked,
        ] {
            let mut task = Task::new(&acquire, Instant::now());
            decide(&mut task, Look::default());
            task.lose_write();
            task.fail(error);
            let told = task.finish("").expect_err("it failed").to_string();
            assert!(told.contains("during the write"), "{told}");
            assert!(!told.contains("nothing was written"), "{told}");
        }
    }

    #[test]
    fn low_ids_are_tried_before_any() {
        const MAX_KEY: u64 = 1_000_000_999;
        let look = Operation::Look { session: session() };
        let mut task = Task::new(&look, Instant::now());
        let ids: Vec<_> = (0..ID_TRIES)
            .map(|_| {
                task.try_random_id(MAX_KEY);
                let Key::Explicit(id) = task.new_key else {
                    panic!("a random one");
                };
                id
            })
            .collect();
        let (low, any) = ids.split_at(LOW_ID_TRIES as usize);
        let lowest = MAX_KEY / LOW_IDS_SHARE;
        assert!(low.iter().all(|id| (1..=lowest).contains(id)), "{low:?}");
        assert!(low.iter().any(|id| *id > lowest / 100), "{low:?}");
        assert!(any.iter().any(|id| *id > lowest), "{any:?}");
        assert!(task.is_open());
        let mut task = Task::new(&look, Instant::now());
        task.try_random_id(LOW_IDS_SHARE);
        assert!(matches!(task.new_key, Key::Explicit(1)));
        task.ids_tried = ID_TRIES;
        task.try_random_id(MAX_KEY);
        assert!(matches!(task.finish(""), Err(StoreError::IdsExhausted)));
    }
}
