use std::time::{Duration, Instant};

use super::row::Row;
use super::{
    FencingToken, Holder, Holding, MessageId, OwnerToken, Read, Record, RowVersion, Sent, Session,
    StoredLease, TokenOrigin, Ttl,
};

/// A lease that waited for a lock is dated anew so many times: each wait takes a second at most, and
/// whoever is told `unavailable` after that asks again.
const REDATES_MAX: u32 = 2;

/// Take the lease of a session.
#[derive(Clone, Debug)]
pub struct Acquire {
    pub session: Session,
    pub owner_token: OwnerToken,
    pub origin: TokenOrigin,
    pub ttl: Ttl,
    /// To answer this message, if it is not answered already.
    pub message_id: Option<MessageId>,
}

/// The answer to an acquire.
#[derive(Clone, Debug)]
pub enum Acquired {
    Granted(Lease),
    Held(Holding),
    Duplicate(Record),
}

/// What an acquire finds that may only look.
#[derive(Clone, Debug)]
pub enum Found {
    Lease(Lease),
    Duplicate(Record),
    Nothing,
}

/// The owner's view of a lease: the only one with the owner token.
#[derive(Clone, Debug)]
pub struct Lease {
    pub owner_token: OwnerToken,
    pub fencing_token: FencingToken,
    pub how: How,
    pub ttl: Ttl,
    /// No later than its true expiry, on this machine's steady clock.
    pub expires: Instant,
    pub row: RowVersion,
}

/// How a lease came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    New,
    Takeover(Stale),
    /// The same owner token holds it already: an answer was lost and asked for again.
    Again,
}

/// What a takeover replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// A lease: its holder crashed or overran.
    Lease,
    /// An old program's row: such programs may leave all of theirs behind.
    Legacy,
}

impl How {
    /// The word in the answer.
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Takeover(_) => "takeover",
            Self::Again => "again",
        }
    }
}

impl Lease {
    /// Time until the expiry, on this machine's steady clock.
    pub fn remaining(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }

    /// Whether too little is left to hand it out: less than half of what was asked for. A lease
    /// that was only found again is its owner's business.
    pub fn is_worn(&self) -> bool {
        self.how != How::Again && self.remaining() < self.ttl.as_duration() / 2
    }

    /// What everybody else may know of it.
    pub fn holding(&self) -> Holding {
        let holder = Holder::Leased { fencing_token: self.fencing_token, held_ms: 0 };
        Holding { expires: self.expires, holder, row: self.row }
    }
}

/// What follows from the rows that were read.
pub(crate) enum Step {
    Answer(Acquired),
    /// The packet that writes, which replaces this row if it is still as it was read.
    Write(Option<Replace>),
    /// Another session's row has the id: the packet that writes, with another id.
    NewId,
}

/// A row that an acquire replaces.
#[derive(Clone)]
pub(crate) struct Replace {
    pub key: u64,
    pub stored: Vec<u8>,
    pub fencing_floor: u64,
    how: How,
    /// How often the lease was dated anew before.
    pub redates: u32,
}

impl Replace {
    fn new(row: Row, how: How, redates: u32) -> Self {
        Self {
            key: row.key,
            fencing_floor: row.lease.map_or(0, |lease| lease.fencing_token.0 + 1),
            stored: row.stored,
            how,
            redates,
        }
    }

    fn stale(row: Row) -> Self {
        let stale = match row.lease {
            Some(_) => Stale::Lease,
            None => Stale::Legacy,
        };
        Self::new(row, How::Takeover(stale), 0)
    }
}

impl Acquire {
    /// Whether it matters when its packet began: only a caller can have used the token before.
    pub(crate) fn needs_packet_clock(&self) -> bool {
        self.origin == TokenOrigin::Callers || self.message_id.is_some()
    }

    /// What follows from a read before any write.
    pub(crate) fn after_read(&self, read: Read, sent: Sent) -> Step {
        if let Some(stored) = read.record {
            return Step::Answer(Acquired::Duplicate(stored.record));
        }
        let Some(row) = read.row else {
            return Step::Write(None);
        };
        match (row.holding(sent.at), row.lease_of(&self.owner_token)) {
            (Some(holding), Some(lease)) => {
                let lease = self.lease(lease, How::Again, &holding);
                Step::Answer(Acquired::Granted(lease))
            }
            (Some(holding), None) => Step::Answer(Acquired::Held(holding)),
            (None, _) => Step::Write(Some(Replace::stale(row))),
        }
    }

    /// What follows from the rows behind the write, in its transaction; `replaced` is the row that it
    /// was to replace.
    pub(crate) fn after_write(&self, read: Read, sent: Sent, replaced: Option<&Replace>) -> Step {
        if let Some(stored) = read.record {
            return Step::Answer(Acquired::Duplicate(stored.record));
        }
        let Some(row) = read.row else {
            return Step::NewId;
        };
        let Some(holding) = row.holding(sent.at) else {
            return Step::Write(Some(Replace::stale(row)));
        };
        let Some(lease) = row.lease_of(&self.owner_token) else {
            return Step::Answer(Acquired::Held(holding));
        };
        if lease.fencing_token.0 < read.began_us {
            let lease = self.lease(lease, How::Again, &holding);
            return Step::Answer(Acquired::Granted(lease));
        }
        let how = replaced.map_or(How::New, |replaced| replaced.how);
        let mut granted = self.lease(lease, how, &holding);
        // The stored expiry is rounded up; what was asked for is the honest promise.
        granted.expires = granted.expires.min(sent.at + self.ttl.as_duration());
        let redates = replaced.map_or(0, |replaced| replaced.redates);
        if granted.is_worn() && redates < REDATES_MAX {
            // The packet waited for a lock. Nobody was told of this lease yet, so it starts afresh.
            return Step::Write(Some(Replace::new(row, how, redates + 1)));
        }
        Step::Answer(Acquired::Granted(granted))
    }

    /// The lease that one INSERT wrote, as its count and `LAST_INSERT_ID` say it. `None` if it waited for a
    /// lock for so long that it is to start afresh.
    pub(crate) fn after_insert(&self, key: u64, fencing_us: u64, sent: Sent) -> Option<Lease> {
        let lease = Lease {
            owner_token: self.owner_token.clone(),
            fencing_token: FencingToken(fencing_us),
            how: How::New,
            ttl: self.ttl,
            expires: sent.at + self.ttl.as_duration(),
            row: RowVersion::unread(key),
        };
        (!lease.is_worn()).then_some(lease)
    }

    /// What a look that may not be followed by a write shows.
    pub(crate) fn find(&self, read: Read, sent: Sent) -> Found {
        match self.after_read(read, sent) {
            Step::Answer(Acquired::Granted(lease)) => Found::Lease(lease),
            Step::Answer(Acquired::Duplicate(record)) => Found::Duplicate(record),
            Step::Answer(Acquired::Held(_)) | Step::Write(_) | Step::NewId => Found::Nothing,
        }
    }

    fn lease(&self, stored: &StoredLease, how: How, holding: &Holding) -> Lease {
        Lease {
            owner_token: stored.owner_token.clone(),
            fencing_token: stored.fencing_token,
            how,
            ttl: self.ttl,
            expires: holding.expires,
            row: holding.row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::cases::*;

    fn acquire() -> Acquire {
        Acquire {
            session: session(),
            owner_token: owner_token(),
            origin: TokenOrigin::Callers,
            ttl: ttl(30_000),
            message_id: None,
        }
    }

    /// The step in a word or two.
    fn word(step: Step) -> String {
        match step {
            Step::Answer(Acquired::Granted(lease)) => format!("granted {}", lease.how.word()),
            Step::Answer(Acquired::Held(_)) => "held".to_owned(),
            Step::Answer(Acquired::Duplicate(_)) => "duplicate".to_owned(),
            Step::Write(None) => "write".to_owned(),
            Step::Write(Some(replace)) => {
                format!("replace {} {}", replace.how.word(), replace.redates)
            }
            Step::NewId => "new id".to_owned(),
        }
    }

    #[test]
    fn after_a_look() {
        for (row, record_by, expected) in [
            (None, None, "write"),
            (lease(OTHER, BEFORE_US, 10_000), None, "held"),
            (foreign(Some(10_000)), None, "held"),
            (lease(OWNER, BEFORE_US, 10_000), None, "granted again"),
            (lease(OTHER, BEFORE_US, 0), None, "replace takeover 0"),
            (lease(OWNER, BEFORE_US, -1), None, "replace takeover 0"),
            (foreign(Some(-1)), None, "replace takeover 0"),
            (foreign(None), None, "replace takeover 0"),
            (None, Some(OTHER), "duplicate"),
            (lease(OTHER, BEFORE_US, 10_000), Some(OTHER), "duplicate"),
            (lease(OWNER, BEFORE_US, 10_000), Some(OWNER), "duplicate"),
        ] {
            let read = read(row, record_by.and_then(record), 0);
            assert_eq!(word(acquire().after_read(read, sent())), expected);
        }
    }

    #[test]
    fn after_a_write() {
        let stale = || Some(Replace::stale(foreign(None).unwrap()));
        for (row, record_by, replaced, expected) in [
            (lease(OWNER, NOW_US, 30_000), None, None, "granted new"),
            (lease(OWNER, NOW_US, 30_000), None, stale(), "granted takeover"),
            // Granted by an earlier request of its owner.
            (lease(OWNER, BEFORE_US, 30_000), None, None, "granted again"),
            (lease(OWNER, BEFORE_US, 30_000), None, stale(), "granted again"),
            (lease(OTHER, NOW_US, 30_000), None, None, "held"),
            (lease(OTHER, BEFORE_US, 30_000), None, stale(), "held"),
            (foreign(Some(5_000)), None, None, "held"),
            (lease(OTHER, BEFORE_US, -1), None, None, "replace takeover 0"),
            (lease(OWNER, BEFORE_US, -1), None, None, "replace takeover 0"),
            (foreign(None), None, stale(), "replace takeover 0"),
            (None, None, None, "new id"),
            (None, Some(OTHER), None, "duplicate"),
            (lease(OWNER, BEFORE_US, 30_000), Some(OTHER), None, "duplicate"),
        ] {
            let read = read(row, record_by.and_then(record), 0);
            let step = acquire().after_write(read, sent(), replaced.as_ref());
            assert_eq!(word(step), expected);
        }
    }

    #[test]
    fn a_worn_lease_is_dated_anew_twice_and_keeps_how_it_came_about() {
        let worn = || read(lease(OWNER, NOW_US, 14_000), None, 0);
        let mut replaced = Some(Replace::stale(lease(OTHER, BEFORE_US, -1).unwrap()));
        for expected in ["replace takeover 1", "replace takeover 2", "granted takeover"] {
            let step = acquire().after_write(worn(), sent(), replaced.as_ref());
            if let Step::Write(next) = &step {
                replaced.clone_from(next);
                let floor = replaced.as_ref().map(|replaced| replaced.fencing_floor);
                assert_eq!(floor, Some(NOW_US + 1));
            }
            assert_eq!(word(step), expected);
        }
        let read = read(lease(OWNER, BEFORE_US, 14_000), None, 0);
        let again = acquire().after_write(read, sent(), None);
        assert_eq!(word(again), "granted again");
    }

    #[test]
    fn what_is_promised_leaves_the_rounding_of_the_stored_expiry_out() {
        let sent = sent();
        let read = read(lease(OWNER, NOW_US, 30_999), None, 0);
        let Step::Answer(Acquired::Granted(granted)) = acquire().after_write(read, sent, None)
        else {
            panic!("granted");
        };
        assert_eq!(granted.expires, sent.at + Duration::from_secs(30));
    }

    #[test]
    fn a_look_alone_finds_a_lease_or_a_record_or_nothing() {
        let find = |row, record| acquire().find(read(row, record, 0), sent());
        let own = lease(OWNER, BEFORE_US, 1);
        assert!(matches!(find(own, None), Found::Lease(_)));
        assert!(matches!(find(None, record(OTHER)), Found::Duplicate(_)));
        for row in [None, lease(OTHER, BEFORE_US, 1), lease(OWNER, BEFORE_US, 0)] {
            assert!(matches!(find(row, None), Found::Nothing));
        }
    }

    #[test]
    fn a_lease_is_worn_once_half_of_it_is_gone_unless_its_owner_asks_again() {
        let is_worn = |how, left_ms| {
            Lease {
                owner_token: OwnerToken::draw(),
                fencing_token: FencingToken(2),
                how,
                ttl: ttl(10_000),
                expires: Instant::now() + Duration::from_millis(left_ms),
                row: RowVersion::new(1, b""),
            }
            .is_worn()
        };
        assert!(!is_worn(How::New, 9_000));
        assert!(is_worn(How::New, 4_000));
        assert!(is_worn(How::Takeover(Stale::Lease), 0));
        assert!(!is_worn(How::Again, 4_000));
    }
}
