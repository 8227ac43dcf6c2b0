use std::time::Duration;

/// How long a timestamp holds a session. Old programs compute with it, so it can never change;
/// a lease of another length stores an earlier or later timestamp instead.
pub const HOLD_MS: u64 = 30_000;

/// Default life of a lease: what the old programs' callers are used to.
pub const TTL_DEFAULT_MS: u64 = HOLD_MS;

/// Shortest life of a lease. A write may wait 1 s for a row lock, and the stored expiry has whole
/// seconds: less could not be kept honestly.
pub const TTL_MIN_MS: u64 = 1_000;

/// Longest life of a lease that can be asked for: a crashed holder blocks its customer that long.
pub const TTL_MAX_MS: u64 = 3_600_000;

/// Added to an expiry before its fraction is cut off, so that a lease never ends early.
const ROUND_UP_US: i64 = 999_999;

/// What is added to the clock, in microseconds, to get the stored date of something that lasts so
/// long from then on. The date has whole seconds; the fraction is cut off.
pub(crate) fn date_shift_us(lasts_ms: u64) -> i64 {
    let shift_ms = lasts_ms.cast_signed() - HOLD_MS.cast_signed();
    shift_ms * 1_000 + ROUND_UP_US
}

/// The life that a lease is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(u64);

impl Ttl {
    /// A ttl within [`TTL_MIN_MS`] and the lesser of [`TTL_MAX_MS`] and `max_hold_ms`.
    pub fn new(ttl_ms: u64, max_hold_ms: u64) -> Result<Self, String> {
        let longest_ms = TTL_MAX_MS.min(max_hold_ms);
        if (TTL_MIN_MS..=longest_ms).contains(&ttl_ms) {
            Ok(Self(ttl_ms))
        } else {
            Err(format!("must be {TTL_MIN_MS}-{longest_ms} milliseconds"))
        }
    }

    /// `TTL_DEFAULT_MS`, or the server's maximum if that is less.
    pub fn default_within(max_hold_ms: u64) -> Self {
        Self(TTL_DEFAULT_MS.min(max_hold_ms))
    }

    /// The ttl, cut to what is left; `None` if nothing is.
    pub fn cut_to(self, left_ms: u64) -> Option<Self> {
        (left_ms > 0).then(|| Self(self.0.min(left_ms)))
    }

    /// The ttl in milliseconds.
    pub fn as_ms(self) -> u64 {
        self.0
    }

    /// The ttl as a duration.
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_keeps_to_both_limits() {
        assert!(Ttl::new(TTL_MIN_MS - 1, u64::MAX).is_err());
        assert!(Ttl::new(TTL_MIN_MS, u64::MAX).is_ok());
        assert!(Ttl::new(TTL_MAX_MS, u64::MAX).is_ok());
        assert!(Ttl::new(TTL_MAX_MS + 1, u64::MAX).is_err());
        assert!(Ttl::new(60_001, 60_000).is_err());
        assert_eq!(Ttl::default_within(900_000).as_ms(), TTL_DEFAULT_MS);
        assert_eq!(Ttl::default_within(5_000).as_ms(), 5_000);
    }
}
