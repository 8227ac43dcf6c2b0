use super::row::Row;
use super::{FencingToken, Holder, Message, OwnerToken, Sent, Session, Snapshot};

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

/// End a lease without its owner token: an operator's release.
#[derive(Clone, Debug)]
pub struct Force {
    pub session: Session,
    pub fencing_token: Option<FencingToken>,
}

/// The answer to a [`Force`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    Released(Holder),
    /// The session is free, or its lease has another fencing token.
    NotHeld,
}

/// What a forced release does after a read.
pub(crate) enum ForceStep {
    Answer(Forced),
    /// Delete this row if it has not changed.
    Delete(Row),
}

impl Force {
    /// Decides after a read. `tried` is the row that an earlier, lost packet was to delete.
    pub(crate) fn after_read(&self, read: Snapshot, tried: Option<&Row>) -> ForceStep {
        let row = read.row.filter(|row| {
            let fencing_token = row.lease.as_ref().map(|lease| lease.fencing_token);
            row.remaining().is_some()
                && (self.fencing_token.is_none() || self.fencing_token == fencing_token)
        });
        match (row, tried) {
            // The lease still exists, renewed or not: the lost packet changed nothing.
            (Some(row), Some(tried)) if is_same_lease(&row, tried) => ForceStep::Delete(row),
            // The lease has ended. If another lease holds the session now, the operator did not
            // mean that one.
            (_, Some(tried)) => ForceStep::Answer(Forced::Released(tried.holder())),
            (Some(row), None) => ForceStep::Delete(row),
            (None, None) => ForceStep::Answer(Forced::NotHeld),
        }
    }
}

fn is_same_lease(one: &Row, other: &Row) -> bool {
    match (&one.lease, &other.lease) {
        (None, None) => one.stored == other.stored,
        (one, other) => one == other,
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

    #[test]
    fn a_forced_release_deletes_only_the_lease_that_is_named() {
        let live = || lease(OTHER, BEFORE_US, 1_000);
        let renewed = || lease(OTHER, BEFORE_US, 20_000);
        let next = || lease(OWNER, NOW_US, 20_000);
        for (row, fencing_token, tried, expected) in [
            (live(), None, None, "delete"),
            (live(), Some(BEFORE_US), None, "delete"),
            (live(), Some(NOW_US), None, "not held"),
            (foreign(Some(1_000)), None, None, "delete"),
            (foreign(Some(1_000)), Some(BEFORE_US), None, "not held"),
            (lease(OTHER, BEFORE_US, 0), None, None, "not held"),
            (foreign(None), None, None, "not held"),
            (None, None, None, "not held"),
            // An earlier packet was lost.
            (None, None, live(), "released"),
            (next(), None, live(), "released"),
            (foreign(Some(1_000)), None, live(), "released"),
            (renewed(), None, live(), "delete"),
            (foreign(Some(1_000)), None, foreign(Some(2_000)), "delete"),
        ] {
            let fencing_token = fencing_token.map(FencingToken);
            let force = Force { session: session(), fencing_token };
            let step = match force.after_read(read(row, None, 0), tried.as_ref()) {
                ForceStep::Delete(_) => "delete",
                ForceStep::Answer(Forced::Released(_)) => "released",
                ForceStep::Answer(Forced::NotHeld) => "not held",
            };
            assert_eq!(step, expected);
        }
    }
}
