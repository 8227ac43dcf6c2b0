//! The types and the rules of leases, without input or output. The store sends a packet of
//! statements, and each operation decides here what the returned rows mean.
//!
//! The column `timestamp` of a row contains the whole lease. So a program that overwrites or
//! deletes the row ends the lease atomically, even if it knows nothing of owner tokens:
//!
//! ```text
//! 2025-10-14 09:00:00.000000 1760432400123456 48210000000000000007    (stored without the spaces)
//! └  expiry minus 30 s     ┘ └ fencing token┘ └   owner token    ┘
//! ```
//!
//! An old program reads the first part: a datetime that holds the session for 30 s. Both MySQL and
//! MariaDB read the digits that follow as more digits of its fraction.

mod acquire;
mod commit;
mod force;
mod message;
mod release;
mod renew;
mod row;
mod session;
mod token;
mod ttl;

use std::time::Instant;

pub use acquire::Replace;
pub(crate) use acquire::Step;
pub use acquire::{Acquire, Acquired, How, Lease, Stale};
pub use commit::{Commit, Committed};
pub(crate) use force::ForceStep;
pub use force::{Force, Forced};
pub use message::StoredRecord;
pub use message::{MESSAGE_ID_MAX_CHARS, Message, MessageId, RESULT_MAX_BYTES, Record};
pub use release::{Release, Released};
pub use renew::{Renew, Renewed};
pub use row::Row;
pub use row::{Holder, Holding, RowVersion, STORED_CHARS, StoredLease};
pub(crate) use row::{claim, claim_mark};
pub use session::{ID_MAX_CHARS, Id, Session};
pub use token::{FencingToken, OWNER_TOKEN_DIGITS, OwnerToken, TokenOrigin};
pub(crate) use ttl::date_shift_us;
pub use ttl::{HOLD_MS, TTL_DEFAULT_MS, TTL_MAX_MS, TTL_MIN_MS, Ttl};

/// What a packet read for one operation; in a packet that writes, after the write and in the same
/// transaction.
#[derive(Default)]
pub struct Snapshot {
    pub row: Option<Row>,
    pub record: Option<StoredRecord>,
    /// Rows that the operation's statement changed. 0 for an acquire.
    pub changed: u64,
    /// The fencing token of the lease that the acquire's own INSERT wrote.
    pub written: Option<FencingToken>,
    /// After a lost packet, the database's clock when the packet was sent or a little earlier, in
    /// microseconds since 1970. A lease with a lower fencing token was granted before the operation.
    pub began_us: u64,
}

/// When a packet was sent.
#[derive(Clone, Copy)]
pub struct Sent {
    pub at: Instant,
    /// Whether an earlier packet of the operation was lost and may have taken effect.
    pub after_loss: bool,
}

#[cfg(test)]
#[allow(clippy::unnecessary_wraps)] // the tables of cases need options
pub(crate) mod cases {
    //! Values for test cases.

    use std::time::Instant;

    use super::{
        Acquire, Id, Message, MessageId, OwnerToken, Row, Sent, Session, Snapshot, StoredRecord,
        TokenOrigin, Ttl,
    };

    pub const OWNER: &str = "48210000000000000007";
    pub const OTHER: &str = "99990000000000000009";

    /// The database's clock in all cases.
    pub const NOW_US: u64 = 1_760_432_405_000_000;

    /// The fencing token of a lease that was granted before the operation began.
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

    pub fn acquire() -> Acquire {
        Acquire {
            session: session(),
            owner_token: owner_token(),
            origin: TokenOrigin::Callers,
            ttl: ttl(30_000),
            message_id: None,
        }
    }

    pub fn message() -> Message {
        Message { id: MessageId::new("wamid.1").unwrap(), result: None }
    }

    /// The row of a lease with this much time left.
    pub fn lease(owner: &str, fencing_us: u64, left_ms: i64) -> Option<Row> {
        let stored = format!("2025-10-14 09:00:00.000000{fencing_us}{owner}");
        let age_us = (30_000 - left_ms) * 1_000;
        Some(Row::new(7, stored.into(), Some(age_us), NOW_US))
    }

    /// An old program's row; without a valid date if `left_ms` is `None`.
    pub fn foreign(left_ms: Option<i64>) -> Option<Row> {
        let age_us = left_ms.map(|left_ms| (30_000 - left_ms) * 1_000);
        Some(Row::new(7, b"2025-10-14 09:00:00".to_vec(), age_us, NOW_US))
    }

    pub fn record(by: &str) -> Option<StoredRecord> {
        Some(StoredRecord::new(by.into(), 0, None))
    }

    pub fn read(row: Option<Row>, record: Option<StoredRecord>, changed: u64) -> Snapshot {
        let written = row.as_ref().filter(|_| changed > 0).and_then(|row| row.lease.as_ref());
        let written = written.map(|lease| lease.fencing_token);
        Snapshot { row, record, changed, written, began_us: NOW_US - 1_000 }
    }

    pub fn sent() -> Sent {
        Sent { at: Instant::now(), after_loss: false }
    }

    pub fn sent_after_loss() -> Sent {
        Sent { after_loss: true, ..sent() }
    }
}
