use std::time::Instant;

use super::{FencingToken, OwnerToken, Sent, Session, Snapshot, Ttl};

/// Give a lease a new expiry.
#[derive(Clone, Debug)]
pub struct Renew {
    pub session: Session,
    pub owner_token: OwnerToken,
    pub ttl: Ttl,
    /// The new expiry is at most this long after the grant.
    pub max_hold_ms: u64,
}

/// The answer to a [`Renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    Renewed {
        fencing_token: FencingToken,
        /// By this machine's monotonic clock.
        expires: Instant,
    },
    /// The lease is not the caller's any more or has expired: an expired lease is never revived.
    Lost,
    /// The lease has been held for the longest time allowed. Has precedence over `Lost` while the
    /// row still has the caller's token.
    MaxHold,
}

impl Renew {
    /// Answers from the row that was read after the write. If the lease is live in that row, it was
    /// live at the write, a moment before, so the write has given it its new expiry.
    pub(crate) fn answer(&self, read: &Snapshot, sent: Sent) -> Renewed {
        let row = read.row.as_ref();
        let Some((row, lease)) = row.and_then(|row| Some((row, row.lease_of(&self.owner_token)?)))
        else {
            return Renewed::Lost;
        };
        let held_ms = row.clock_us.saturating_sub(lease.fencing_token.0) / 1_000;
        let Some(ttl) = self.ttl.cut_to(self.max_hold_ms.saturating_sub(held_ms)) else {
            return Renewed::MaxHold;
        };
        let Some(remaining) = row.remaining() else {
            return Renewed::Lost;
        };
        Renewed::Renewed {
            fencing_token: lease.fencing_token,
            // The stored expiry is rounded up.
            expires: sent.at + remaining.min(ttl.as_duration()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::cases::*;

    #[test]
    fn the_answer_is_the_row_that_was_read_after_the_write() {
        const LOST: Result<u64, Renewed> = Err(Renewed::Lost);
        // The grant was 4,876 ms ago.
        for (row, max_hold_ms, expected) in [
            (lease(OWNER, BEFORE_US, 20_700), 900_000, Ok(20_000)),
            // Shorter than the ttl, near the longest hold.
            (lease(OWNER, BEFORE_US, 5_900), 10_000, Ok(5_124)),
            (lease(OWNER, BEFORE_US, 1_000), 4_876, Err(Renewed::MaxHold)),
            (lease(OWNER, BEFORE_US, -1), 4_876, Err(Renewed::MaxHold)),
            (lease(OWNER, BEFORE_US, 0), 900_000, LOST),
            (lease(OTHER, BEFORE_US, 20_000), 900_000, LOST),
            (lease(OTHER, BEFORE_US, 20_000), 4_876, LOST),
            (foreign(Some(20_000)), 900_000, LOST),
            (foreign(None), 900_000, LOST),
            (None, 900_000, LOST),
        ] {
            let (session, owner_token, ttl) = (session(), owner_token(), ttl(20_000));
            let renew = Renew { session, owner_token, ttl, max_hold_ms };
            let sent = sent();
            let expected = expected.map_or_else(
                |refused| refused,
                |left_ms| Renewed::Renewed {
                    fencing_token: FencingToken(BEFORE_US),
                    expires: sent.at + Duration::from_millis(left_ms),
                },
            );
            assert_eq!(renew.answer(&read(row, None, 1), sent), expected);
        }
    }
}
