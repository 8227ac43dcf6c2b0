use std::time::Duration;

/// How long a timestamp holds a session. Old programs compute with this time, so it can never
/// change. A lease of another length stores an earlier or later timestamp instead.
pub const HOLD_MS: u64 = 30_000;

/// Default ttl: the length of a lock in the old programs.
pub const TTL_DEFAULT_MS: u64 = HOLD_MS;

/// Shortest ttl. A write may wait 1 s for a row lock, and the stored expiry has whole seconds, so a
/// shorter promise could not be kept.
pub const TTL_MIN_MS: u64 = 1_000;

/// Longest ttl, which is also how long a crashed holder can block its customer.
pub const TTL_MAX_MS: u64 = 3_600_000;

/// Added to an expiry before its fraction is cut off, so that a lease never ends early.
const ROUND_UP_US: i64 = 999_999;

/// What a statement adds to the clock, in microseconds, to get the stored date of a lease that
/// lasts `lasts_ms` from now. The statement then cuts the date to whole seconds.
pub(crate) fn date_shift_us(lasts_ms: u64) -> i64 {
    let shift_ms = lasts_ms.cast_signed() - HOLD_MS.cast_signed();
    shift_ms * 1_000 + ROUND_UP_US
}

/// The requested length of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(u64);

impl Ttl {
    /// A ttl from [`TTL_MIN_MS`] to the lesser of [`TTL_MAX_MS`] and `max_hold_ms`.
    pub fn new(ttl_ms: u64, max_hold_ms: u64) -> Result<Self, String> {
        let longest_ms = TTL_MAX_MS.min(max_hold_ms);
        if (TTL_MIN_MS..=longest_ms).contains(&ttl_ms) {
            Ok(Self(ttl_ms))
        } else {
            Err(format!("must be {TTL_MIN_MS}-{longest_ms} milliseconds"))
        }
    }

    /// [`TTL_DEFAULT_MS`], or the server's maximum if that is less.
    pub fn default_within(max_hold_ms: u64) -> Self {
        Self(TTL_DEFAULT_MS.min(max_hold_ms))
    }

    /// The lesser of the ttl and what is left; `None` if nothing is left.
    pub fn cut_to(self, left_ms: u64) -> Option<Self> {
        (left_ms > 0).then(|| Self(self.0.min(left_ms)))
    }

    pub fn as_ms(self) -> u64 {
        self.0
    }

    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_within_both_limits() {
        for (ttl_ms, max_hold_ms, is_valid) in [
            (TTL_MIN_MS - 1, u64::MAX, false),
            (TTL_MIN_MS, u64::MAX, true),
            (TTL_MAX_MS, u64::MAX, true),
            (TTL_MAX_MS + 1, u64::MAX, false),
            (60_001, 60_000, false),
        ] {
            assert_eq!(Ttl::new(ttl_ms, max_hold_ms).is_ok(), is_valid, "{ttl_ms}");
        }
        assert_eq!(Ttl::default_within(900_000).as_ms(), TTL_DEFAULT_MS);
        assert_eq!(Ttl::default_within(5_000).as_ms(), 5_000);
    }
}
