//! The words and the rules of leases. No input or output happens here: the store sends a packet of
//! statements, and the function of a verb says what the rows that came back mean.
//!
//! A lease lives in the one column `timestamp` of its row, so that whoever overwrites or deletes
//! the row ends the lease in one atom, even a program that knows nothing of owner tokens:
//!
//! ```text
//! 2025-10-14 09:00:00.000000 1760432400123456 48210000000000000007    (stored without the spaces)
//! └  expiry minus 30 s     ┘ └ fencing token┘ └   owner token    ┘
//! ```
//!
//! The first part is what an old program reads: a datetime that holds the session for 30 s. The
//! digits behind it read as more digits of its fraction, on MySQL and MariaDB alike.

mod acquire;
mod commit;
mod message;
mod release;
mod renew;
mod row;
mod session;
mod token;
mod ttl;

use std::time::Instant;

pub use acquire::{Acquire, Acquired, Found, How, Lease, Stale};
pub(crate) use acquire::{Replace, Step};
pub use commit::{Commit, Committed};
pub use message::{MESSAGE_ID_MAX_CHARS, Message, MessageId, RESULT_MAX_BYTES, Record};
pub use release::{Force, Forced, Release, Released};
pub use renew::{Renew, Renewed};
pub use row::{Holder, Holding, RowVersion, STORED_CHARS, StoredLease};
pub(crate) use row::{Row, claim_mark};
pub use session::{ID_MAX_CHARS, Id, Session};
pub use token::{FencingToken, OWNER_TOKEN_DIGITS, OwnerToken, TokenOrigin};
pub(crate) use ttl::date_shift_us;
pub use ttl::{HOLD_MS, TTL_DEFAULT_MS, TTL_MAX_MS, TTL_MIN_MS, Ttl};

pub(crate) use message::StoredRecord;
pub(crate) use release::ForceStep;

/// What one packet read back for one operation, in the transaction of its write.
#[derive(Default)]
pub(crate) struct Read {
    pub row: Option<Row>,
    /// Whether that came from a server that takes writes. Any other may be a replica that lags.
    pub takes_writes: bool,
    pub record: Option<StoredRecord>,
    /// How many rows the operation's own statement changed.
    pub changed: u64,
    /// The database's clock when the operation's first packet began, in microseconds since 1970, or
    /// a little earlier. A lease with a lower fencing token was granted before that.
    pub began_us: u64,
}

/// A packet, as the machine's steady clock and the network have it.
#[derive(Clone, Copy)]
pub(crate) struct Sent {
    pub at: Instant,
    /// Whether an earlier one of the same operation was lost, and may have taken effect.
    pub again: bool,
}

#[cfg(test)]
#[allow(clippy::unnecessary_wraps)] // as they stand in the tables
mod cases {
    //! Rows and records for the tables of cases of the verbs.

    use std::time::Instant;

    use super::{Id, Message, MessageId, OwnerToken, Read, Row, Sent, Session, StoredRecord, Ttl};

    pub const OWNER: &str = "48210000000000000007";
    pub const OTHER: &str = "99990000000000000009";

    /// The database's clock in all cases.
    pub const NOW_US: u64 = 1_760_432_405_000_000;

    /// The fencing token of leases that were granted before the operation began.
    pub const BEFORE_US: u64 = 1_760_432_400_123_456;

    pub fn session() -> Session {
        let id = |text: &str| Id::new(text).unwrap();
        Session { id_device: id("bot1"), id_prospect: id("60123456789") }
    }

    pub fn owner_token() -> OwnerToken {
        OwnerToken::new(OWNER).unwrap()
    }

    pub fn ttl(ms: u64) -> Ttl {
        Ttl::new(ms, u64::MAX).unwrap()
    }

    pub fn message() -> Message {
        Message { id: MessageId::new("wamid.1").unwrap(), result: None }
    }

    /// A lease's row, with so many milliseconds left.
    pub fn lease(owner: &str, fencing_us: u64, left_ms: i64) -> Option<Row> {
        let stored = format!("2025-10-14 09:00:00.000000{fencing_us}{owner}");
        let age_us = (30_000 - left_ms) * 1_000;
        Some(Row::new(7, stored.into(), Some(age_us), NOW_US))
    }

    /// An old program's row, or one that is no date.
    pub fn foreign(left_ms: Option<i64>) -> Option<Row> {
        let age_us = left_ms.map(|left_ms| (30_000 - left_ms) * 1_000);
        Some(Row::new(7, b"2025-10-14 09:00:00".to_vec(), age_us, NOW_US))
    }

    pub fn record(by: &str) -> Option<StoredRecord> {
        Some(StoredRecord::new(by.into(), 0, None))
    }

    pub fn read(row: Option<Row>, record: Option<StoredRecord>, changed: u64) -> Read {
        Read { row, takes_writes: true, record, changed, began_us: NOW_US - 1_000 }
    }

    pub fn sent() -> Sent {
        Sent { at: Instant::now(), again: false }
    }

    pub fn sent_again() -> Sent {
        Sent { again: true, ..sent() }
    }
}
