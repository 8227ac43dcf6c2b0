use super::{Message, OwnerToken, Sent, Session, Snapshot};

/// Give a lease back.
#[derive(Clone, Debug)]
pub struct Release {
    pub session: Session,
    pub owner_token: OwnerToken,
    /// The answered message to record.
    pub message: Option<Message>,
}

/// The answer to a [`Release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    Released,
    /// The lease has expired or is not the caller's any more; nothing was deleted.
    Lost,
}

impl Release {
    /// Answers from the number of deleted rows. Uses the row and the record only if an earlier
    /// packet was lost: that packet may have released the lease.
    pub(crate) fn answer(&self, read: &Snapshot, sent: Sent) -> Released {
        if read.changed > 0 {
            return Released::Released;
        }
        // The lost packet did not release the lease if the lease in the row was granted before that
        // packet, or if the message has no record.
        let stored = read.row.as_ref().and_then(|row| row.lease.as_ref());
        let may_have_been_released = stored
            .is_none_or(|stored| stored.fencing_token.0 >= read.began_us)
            && (self.message.is_none() || read.record.is_some());
        if sent.after_loss && may_have_been_released { Released::Released } else { Released::Lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::cases::*;

    #[test]
    fn the_answer_is_the_number_of_deleted_rows_unless_an_earlier_packet_was_lost() {
        let (lost, released) = (Released::Lost, Released::Released);
        let other = |fencing_us| lease(OTHER, fencing_us, 30_000);
        let m = || Some(message());
        for (message, row, record_by, changed, sent, expected) in [
            (None, None, None, 1, sent(), released),
            (None, None, None, 0, sent(), lost),
            (None, other(NOW_US), None, 0, sent(), lost),
            (None, None, None, 0, sent_after_loss(), released),
            (None, other(NOW_US), None, 0, sent_after_loss(), released),
            (None, foreign(Some(1)), None, 0, sent_after_loss(), released),
            (None, other(BEFORE_US), None, 0, sent_after_loss(), lost),
            (None, lease(OWNER, BEFORE_US, -1), None, 0, sent_after_loss(), lost),
            // Another request with the token was granted a new lease since.
            (None, lease(OWNER, NOW_US, 30_000), None, 0, sent_after_loss(), released),
            (m(), None, Some(OWNER), 1, sent(), released),
            (m(), None, Some(OTHER), 1, sent(), released),
            (m(), None, Some(OWNER), 0, sent(), lost),
            (m(), None, Some(OWNER), 0, sent_after_loss(), released),
            (m(), None, Some(OTHER), 0, sent_after_loss(), released),
            (m(), other(BEFORE_US), Some(OWNER), 0, sent_after_loss(), lost),
            (m(), None, None, 0, sent_after_loss(), lost),
        ] {
            let release = Release { session: session(), owner_token: owner_token(), message };
            let read = read(row, record_by.and_then(record), changed);
            assert_eq!(release.answer(&read, sent), expected);
        }
    }
}
