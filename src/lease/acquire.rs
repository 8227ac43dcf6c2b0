use std::time::{Duration, Instant};

use super::row::Row;
use super::{
    FencingToken, Holder, Holding, MessageId, OwnerToken, Record, RowVersion, Sent, Session,
    Snapshot, StoredLease, TokenOrigin, Ttl,
};

/// Take the lease of a session.
#[derive(Clone, Debug)]
pub struct Acquire {
    pub session: Session,
    pub owner_token: OwnerToken,
    pub origin: TokenOrigin,
    pub ttl: Ttl,
    /// The message to answer. If it is answered already, there is no lease.
    pub message_id: Option<MessageId>,
}

/// The answer to an [`Acquire`].
#[derive(Clone, Debug)]
pub enum Acquired {
    Granted(Lease),
    Held(Holding),
    Duplicate(Record),
}

/// The owner's view of a lease: the only one with the owner token.
#[derive(Clone, Debug)]
pub struct Lease {
    pub owner_token: OwnerToken,
    pub fencing_token: FencingToken,
    pub how: How,
    pub ttl: Ttl,
    /// No later than the stored expiry, on this machine's monotonic clock.
    pub expires: Instant,
    pub row: RowVersion,
}

/// How a lease was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    New,
    Takeover(Stale),
    /// The same owner token holds it already: the caller lost the first answer and asks again.
    Again,
}

/// What a takeover replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// An expired lease: its holder crashed or took too long.
    Lease,
    /// An old program's row. Such programs may never delete theirs, so it says nothing of a crash.
    Legacy,
}

impl How {
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Takeover(_) => "takeover",
            Self::Again => "again",
        }
    }
}

impl Lease {
    pub fn remaining(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }

    /// Whether less than half of the ttl is left, which is too little to grant. An owner that asks
    /// again gets what is left, if anything is.
    pub fn is_too_short(&self) -> bool {
        let least = match self.how {
            How::Again => Duration::from_millis(1),
            How::New | How::Takeover(_) => self.ttl.as_duration() / 2,
        };
        self.remaining() < least
    }

    /// The view of everybody but its owner.
    pub fn holding(&self) -> Holding {
        let holder = Holder::Leased { fencing_token: self.fencing_token, held_ms: 0 };
        Holding { expires: self.expires, holder, row: self.row }
    }
}

/// What an acquire does after a packet.
pub(crate) enum Step {
    Answer(Acquired),
    /// Send the packet that writes. It replaces this row if the row has not changed.
    Write(Option<Replace>),
    /// Send the packet that writes with another id: another session's row has this one.
    NewId,
}

/// A row that an acquire replaces.
#[derive(Clone)]
pub struct Replace {
    pub key: i64,
    pub stored: Vec<u8>,
    pub fencing_floor: u64,
    stale: Stale,
}

impl Replace {
    fn stale(row: Row) -> Self {
        Self {
            key: row.key,
            stale: if row.lease.is_some() { Stale::Lease } else { Stale::Legacy },
            fencing_floor: row.lease.map_or(0, |lease| lease.fencing_token.0 + 1),
            stored: row.stored,
        }
    }
}

impl Acquire {
    /// Whether it needs an INSERT of its own, to know which lease that INSERT wrote: another request
    /// may have the same owner token, or the next statement may delete only that lease.
    pub(crate) fn needs_own_insert(&self) -> bool {
        self.origin == TokenOrigin::Callers || self.message_id.is_some()
    }

    /// Decides after a read, before any write.
    pub(crate) fn after_read(&self, read: Snapshot, sent: Sent) -> Step {
        if let Some(stored) = read.record {
            return Step::Answer(Acquired::Duplicate(stored.record));
        }
        let Some(row) = read.row else {
            return Step::Write(None);
        };
        match (row.holding(sent.at), row.lease_of(&self.owner_token)) {
            (Some(holding), Some(lease)) => self.found_own(lease.fencing_token, &holding),
            (Some(holding), None) => Step::Answer(Acquired::Held(holding)),
            (None, _) => Step::Write(Some(Replace::stale(row))),
        }
    }

    /// Decides after a write, from the rows that its transaction read back; `replaced` is the row
    /// that the write was to replace.
    pub(crate) fn after_write(
        &self,
        read: Snapshot,
        sent: Sent,
        replaced: Option<&Replace>,
    ) -> Step {
        if let Some(stored) = read.record {
            return Step::Answer(Acquired::Duplicate(stored.record));
        }
        let Some(row) = read.row else {
            return Step::NewId;
        };
        let Some(holding) = row.holding(sent.at) else {
            return Step::Write(Some(Replace::stale(row)));
        };
        let Some(&StoredLease { fencing_token, .. }) = row.lease_of(&self.owner_token) else {
            return Step::Answer(Acquired::Held(holding));
        };
        // No other request has a token that the server drew.
        let is_own = read.written == Some(fencing_token) || self.origin == TokenOrigin::Ours;
        let may_be_of_lost_packet = sent.after_loss && fencing_token.0 >= read.began_us;
        if !is_own && !may_be_of_lost_packet {
            return self.found_own(fencing_token, &holding);
        }
        let how = replaced.map_or(How::New, |row| How::Takeover(row.stale));
        // The stored expiry is rounded up; promise no more than the ttl.
        let expires = holding.expires.min(sent.at + self.ttl.as_duration());
        // Even if the packet waited, the lease keeps its date: another request with this token may
        // have found it, and its caller may be using it.
        Step::Answer(Acquired::Granted(self.lease(fencing_token, how, expires, holding.row)))
    }

    /// The lease that a single INSERT wrote, from its `LAST_INSERT_ID`.
    pub(crate) fn after_insert(&self, key: i64, fencing_us: u64, sent: Sent) -> Lease {
        let expires = sent.at + self.ttl.as_duration();
        self.lease(FencingToken(fencing_us), How::New, expires, RowVersion::unread(key))
    }

    /// Answers from a read that no write may follow. Returns `None` if a write is needed, or if
    /// another owner holds the session.
    pub(crate) fn find(&self, read: Snapshot, sent: Sent) -> Option<Acquired> {
        match self.after_read(read, sent) {
            Step::Answer(Acquired::Held(_)) | Step::Write(_) | Step::NewId => None,
            Step::Answer(acquired) => Some(acquired),
        }
    }

    /// The row has a lease with this owner token that this packet did not write.
    fn found_own(&self, fencing_token: FencingToken, holding: &Holding) -> Step {
        let how = match self.origin {
            TokenOrigin::Callers => How::Again,
            // No other request has this token, so a single INSERT wrote the lease, although its count
            // was not 3: a trigger or the versions of a table can change the count.
            TokenOrigin::Ours => How::New,
        };
        let lease = self.lease(fencing_token, how, holding.expires, holding.row);
        Step::Answer(Acquired::Granted(lease))
    }

    fn lease(
        &self,
        fencing_token: FencingToken,
        how: How,
        expires: Instant,
        row: RowVersion,
    ) -> Lease {
        let (owner_token, ttl) = (self.owner_token.clone(), self.ttl);
        Lease { owner_token, fencing_token, how, ttl, expires, row }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::cases::*;

    fn describe(step: Step) -> String {
        match step {
            Step::Answer(Acquired::Granted(lease)) => format!("granted {}", lease.how.word()),
            Step::Answer(Acquired::Held(_)) => "held".to_owned(),
            Step::Answer(Acquired::Duplicate(_)) => "duplicate".to_owned(),
            Step::Write(None) => "write".to_owned(),
            Step::Write(Some(replace)) => {
                format!("replace {:?}", replace.stale)
            }
            Step::NewId => "new id".to_owned(),
        }
    }

    #[test]
    fn step_after_a_read() {
        for (row, record_by, expected) in [
            (None, None, "write"),
            (lease(OTHER, BEFORE_US, 10_000), None, "held"),
            (foreign(Some(10_000)), None, "held"),
            (lease(OWNER, BEFORE_US, 10_000), None, "granted again"),
            (lease(OTHER, BEFORE_US, 0), None, "replace Lease"),
            (lease(OWNER, BEFORE_US, -1), None, "replace Lease"),
            (foreign(Some(-1)), None, "replace Legacy"),
            (foreign(None), None, "replace Legacy"),
            (None, Some(OTHER), "duplicate"),
            (lease(OTHER, BEFORE_US, 10_000), Some(OTHER), "duplicate"),
            (lease(OWNER, BEFORE_US, 10_000), Some(OWNER), "duplicate"),
        ] {
            let read = read(row, record_by.and_then(record), 0);
            assert_eq!(describe(acquire().after_read(read, sent())), expected);
        }
        let servers = Acquire { origin: TokenOrigin::Ours, ..acquire() };
        let read = read(lease(OWNER, NOW_US, 30_000), None, 0);
        assert_eq!(describe(servers.after_read(read, sent())), "granted new");
    }

    #[test]
    fn step_after_a_write() {
        let stale = || Some(Replace::stale(foreign(None).unwrap()));
        for (row, changed, record_by, replaced, expected) in [
            (lease(OWNER, NOW_US, 30_000), 3, None, None, "granted new"),
            (lease(OWNER, NOW_US, 30_000), 2, None, stale(), "granted takeover"),
            // Another request of its owner may have found it, so it keeps its date.
            (lease(OWNER, NOW_US, 14_000), 3, None, None, "granted new"),
            (lease(OWNER, NOW_US, 14_000), 2, None, stale(), "granted takeover"),
            // Granted by another request of its owner, maybe while this packet waited.
            (lease(OWNER, NOW_US, 30_000), 0, None, None, "granted again"),
            (lease(OWNER, BEFORE_US, 30_000), 0, None, stale(), "granted again"),
            (lease(OTHER, NOW_US, 30_000), 0, None, None, "held"),
            (lease(OTHER, BEFORE_US, 30_000), 0, None, stale(), "held"),
            (foreign(Some(5_000)), 0, None, None, "held"),
            (lease(OTHER, BEFORE_US, -1), 0, None, None, "replace Lease"),
            (lease(OWNER, BEFORE_US, -1), 0, None, None, "replace Lease"),
            (foreign(None), 0, None, stale(), "replace Legacy"),
            (None, 0, None, None, "new id"),
            (None, 3, Some(OTHER), None, "duplicate"),
            (lease(OWNER, BEFORE_US, 30_000), 0, Some(OTHER), None, "duplicate"),
        ] {
            let read = read(row, record_by.and_then(record), changed);
            let step = acquire().after_write(read, sent(), replaced.as_ref());
            assert_eq!(describe(step), expected);
        }
    }

    #[test]
    fn step_after_a_packet_that_was_sent_after_loss() {
        let servers = || Acquire { origin: TokenOrigin::Ours, ..acquire() };
        for (acquire, row, changed, expected) in [
            (acquire(), lease(OWNER, NOW_US, 30_000), 0, "granted new"),
            (acquire(), lease(OWNER, NOW_US, 30_000), 3, "granted new"),
            (acquire(), lease(OWNER, BEFORE_US, 30_000), 0, "granted again"),
            // Nobody else has this token.
            (servers(), lease(OWNER, NOW_US, 30_000), 0, "granted new"),
            (servers(), lease(OWNER, BEFORE_US, 30_000), 0, "granted new"),
        ] {
            let step = acquire.after_write(read(row, None, changed), sent_after_loss(), None);
            assert_eq!(describe(step), expected);
        }
    }

    #[test]
    fn a_grant_promises_no_more_than_the_ttl() {
        let sent = sent();
        let read = read(lease(OWNER, NOW_US, 30_999), None, 3);
        let Step::Answer(Acquired::Granted(granted)) = acquire().after_write(read, sent, None)
        else {
            panic!("granted");
        };
        assert_eq!(granted.expires, sent.at + Duration::from_secs(30));
    }

    #[test]
    fn find_answers_a_lease_a_record_or_nothing() {
        let find = |row, record| acquire().find(read(row, record, 0), sent());
        let own = lease(OWNER, BEFORE_US, 1);
        assert!(matches!(find(own, None), Some(Acquired::Granted(_))));
        assert!(matches!(find(None, record(OTHER)), Some(Acquired::Duplicate(_))));
        for row in [None, lease(OTHER, BEFORE_US, 1), lease(OWNER, BEFORE_US, 0)] {
            assert!(find(row, None).is_none());
        }
    }

    #[test]
    fn a_lease_is_too_short_after_half_of_its_ttl_unless_its_owner_asks_again() {
        for (how, left_ms, expected) in [
            (How::New, 9_000, false),
            (How::New, 4_000, true),
            (How::Takeover(Stale::Lease), 0, true),
            (How::Again, 4_000, false),
            (How::Again, 0, true),
        ] {
            let expires = Instant::now() + Duration::from_millis(left_ms);
            let acquire = Acquire { ttl: ttl(10_000), ..acquire() };
            let lease = acquire.lease(FencingToken(2), how, expires, RowVersion::unread(1));
            assert_eq!(lease.is_too_short(), expected, "{how:?} {left_ms}");
        }
    }
}
