use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{FencingToken, HOLD_MS, OWNER_TOKEN_DIGITS, OwnerToken, Ttl};

/// The shape of the datetime at the beginning of the stored form, where 9 is any digit. The
/// database decides which date it is. The fencing token and the owner token follow.
const DATETIME_SHAPE: &[u8] = b"9999-99-99 99:99:99.000000";

/// Microseconds since 1970 have 16 digits from 2001 to 2286.
const FENCING_DIGITS: usize = 16;

/// Characters of a stored lease: 62.
pub const STORED_CHARS: usize = DATETIME_SHAPE.len() + FENCING_DIGITS + OWNER_TOKEN_DIGITS;

/// Fencing tokens stay below this until the year 2128. MySQL rounds a datetime at the seventh digit
/// of its fraction, which is the first of the fencing token and so must not exceed 4.
const FENCING_LIMIT: u64 = 4_999_999_999_999_999;

/// The beginning of every claim of this process: a past datetime, because a generated column may
/// need a valid one, and eight digits that no other process has.
pub(crate) fn claim_mark() -> &'static str {
    static MARK: LazyLock<String> = LazyLock::new(|| {
        let token = OwnerToken::draw();
        // The seventh digit of the fraction is 0, so that MySQL does not round up.
        format!("2000-01-01 00:00:00.0000000{}", &token.secret()[..8])
    });
    &MARK
}

/// What an acquire inserts: a lease that is not dated yet.
pub(crate) fn claim(ttl: Ttl, owner_token: &OwnerToken) -> String {
    format!("{}{:07}{}", claim_mark(), ttl.as_ms(), owner_token.secret())
}

/// The content of a stored lease, apart from its date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLease {
    pub fencing_token: FencingToken,
    pub owner_token: OwnerToken,
}

impl StoredLease {
    /// `None` for anything but a stored lease: an old program's datetime, or garbage.
    pub fn parse(stored: &[u8]) -> Option<Self> {
        let text = str::from_utf8(stored).ok().filter(|text| text.is_ascii())?;
        let has_shape = text.bytes().zip(DATETIME_SHAPE).all(|(byte, shape)| match shape {
            b'9' => byte.is_ascii_digit(),
            shape => byte == *shape,
        });
        if text.len() != STORED_CHARS || !has_shape {
            return None;
        }
        let (fencing, owner) = text[DATETIME_SHAPE.len()..].split_at(FENCING_DIGITS);
        let owner_token = OwnerToken::new(owner).ok()?;
        let all_digits = fencing.bytes().all(|byte| byte.is_ascii_digit());
        let number = fencing.parse().ok().filter(|number| all_digits && *number < FENCING_LIMIT)?;
        Some(Self { fencing_token: FencingToken(number), owner_token })
    }
}

/// The version of a row that was read: enough to detect a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowVersion {
    pub key: i64,
    hash: u64,
}

impl RowVersion {
    pub fn new(key: i64, stored: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        stored.hash(&mut hasher);
        Self { key, hash: hasher.finish() }
    }

    /// The version of a row that was written and not read: a watch reports it as changed.
    pub(super) fn unread(key: i64) -> Self {
        Self::new(key, b"")
    }
}

/// A lease as everyone but its owner may see it: without the owner token.
#[derive(Clone, Debug)]
pub struct Holding {
    /// By this machine's monotonic clock.
    pub expires: Instant,
    pub holder: Holder,
    pub row: RowVersion,
}

impl Holding {
    pub fn remaining(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }
}

/// Who wrote a row that holds its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Leased {
        fencing_token: FencingToken,
        held_ms: u64,
    },
    /// An old program. Its row contains neither an owner nor a start.
    Legacy,
}

/// One session's row, as it was read.
#[derive(Clone)]
pub struct Row {
    pub key: i64,
    pub stored: Vec<u8>,
    /// `None` for an old program's row.
    pub lease: Option<StoredLease>,
    /// The database's clock, in microseconds since 1970.
    pub clock_us: u64,
    /// Time until the expiry by the database's clock: negative after the expiry, `None` if there is
    /// no date.
    remaining_us: Option<i64>,
}

impl Row {
    pub fn new(key: i64, stored: Vec<u8>, age_us: Option<i64>, clock_us: u64) -> Self {
        let hold_us = (HOLD_MS * 1_000).cast_signed();
        Self {
            key,
            lease: StoredLease::parse(&stored),
            stored,
            clock_us,
            remaining_us: age_us.map(|age_us| hold_us.saturating_sub(age_us)),
        }
    }

    /// Applies the time zone of old programs, which is `ahead_us` ahead of ours: their rows hold
    /// until they are stale in both zones.
    pub fn apply_zone(&mut self, ahead_us: i64) {
        if self.lease.is_none() {
            let later_us = ahead_us.saturating_neg().max(0);
            self.remaining_us = self.remaining_us.map(|left_us| left_us.saturating_add(later_us));
        }
    }

    /// Time until the expiry; `None` if the row is stale.
    pub fn remaining(&self) -> Option<Duration> {
        let left_us = u64::try_from(self.remaining_us?).ok()?;
        (left_us > 0).then(|| Duration::from_micros(left_us))
    }

    /// The lease in this row if it belongs to this owner, live or not.
    pub fn lease_of(&self, owner_token: &OwnerToken) -> Option<&StoredLease> {
        self.lease.as_ref().filter(|lease| lease.owner_token == *owner_token)
    }

    pub fn version(&self) -> RowVersion {
        RowVersion::new(self.key, &self.stored)
    }

    pub fn holder(&self) -> Holder {
        match &self.lease {
            Some(StoredLease { fencing_token, .. }) => Holder::Leased {
                fencing_token: *fencing_token,
                held_ms: self.clock_us.saturating_sub(fencing_token.0) / 1_000,
            },
            None => Holder::Legacy,
        }
    }

    /// The holder of the session, unless the row is stale. `read_at` is when the read was sent.
    pub fn holding(&self, read_at: Instant) -> Option<Holding> {
        Some(Holding {
            expires: read_at + self.remaining()?,
            holder: self.holder(),
            row: self.version(),
        })
    }

    /// How long ago the lease in this row expired: its holder crashed. `None` if it has not, or if
    /// an old program wrote the row.
    pub fn overdue(&self) -> Option<Duration> {
        self.lease.as_ref()?;
        let past_us = u64::try_from(-self.remaining_us?).ok()?;
        Some(Duration::from_micros(past_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = "2025-10-14 09:00:00.000000176043240012345648210000000000000007";

    #[test]
    fn a_stored_lease_is_parsed() {
        let expected = StoredLease {
            fencing_token: FencingToken(1_760_432_400_123_456),
            owner_token: OwnerToken::new("48210000000000000007").unwrap(),
        };
        assert_eq!(STORED.len(), STORED_CHARS);
        assert_eq!(StoredLease::parse(STORED.as_bytes()), Some(expected));
    }

    #[test]
    fn anything_else_is_not_a_lease() {
        for at in 0..STORED_CHARS {
            let mut bytes = STORED.as_bytes().to_vec();
            bytes[at] = b'x';
            assert_eq!(StoredLease::parse(&bytes), None, "x at {at}");
            assert_eq!(StoredLease::parse(&bytes[..at]), None, "cut at {at}");
        }
        let longer = format!("{STORED}0");
        let fraction = STORED.replace(".000000", ".100000");
        let last_digit = STORED.replace(".000000", ".000001");
        let signed = STORED.replace("1760432400123456", "+760432400123456");
        let beyond_rounding = STORED.replace("1760432400123456", "4999999999999999");
        for text in
            ["", "2025-10-14 09:00:00", &longer, &fraction, &last_digit, &signed, &beyond_rounding]
        {
            assert_eq!(StoredLease::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(StoredLease::parse(&[0xff; STORED_CHARS]), None);
    }

    #[test]
    fn a_claim_has_the_length_that_acquire_sql_expects() {
        let sql = include_str!("../../sql/lease/acquire.sql");
        let length = claim_mark().len();
        assert!(sql.contains(&format!("LEFT(timestamp, {length}) = :mark")));
        assert!(sql.contains(&format!("SUBSTRING(timestamp, {}, 7)", length + 1)));
        assert_eq!(length + 7 + OWNER_TOKEN_DIGITS, STORED_CHARS);
    }
}
