use super::{Message, OwnerToken, Record, Sent, Session, Snapshot};

/// Record that a message is answered. Only the holder of the session's lease may do this.
#[derive(Clone, Debug)]
pub struct Commit {
    pub session: Session,
    pub owner_token: OwnerToken,
    pub message: Message,
}

/// The answer to a [`Commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    New,
    /// The caller committed the message before, lost the answer, and repeats the request.
    Again,
    /// The lease has expired or is not the caller's any more; nothing was recorded.
    Lost,
    Duplicate(Record),
}

impl Commit {
    /// Answers from the record that was read after the write, and from whether the write created
    /// it.
    pub(crate) fn answer(&self, read: Snapshot, sent: Sent) -> Committed {
        match read.record {
            Some(stored) if !stored.is_by(&self.owner_token) => Committed::Duplicate(stored.record),
            Some(_) if read.changed > 0 || sent.after_loss => Committed::New,
            Some(_) => Committed::Again,
            None => Committed::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::cases::*;

    #[test]
    fn the_answer_is_the_record_that_was_read_after_the_write() {
        let commit = Commit { session: session(), owner_token: owner_token(), message: message() };
        let other = || Committed::Duplicate(record(OTHER).unwrap().record);
        for (record_by, changed, sent, expected) in [
            (Some(OWNER), 1, sent(), Committed::New),
            (Some(OWNER), 0, sent(), Committed::Again),
            (Some(OWNER), 0, sent_after_loss(), Committed::New),
            (None, 0, sent(), Committed::Lost),
            (None, 0, sent_after_loss(), Committed::Lost),
            (Some(OTHER), 0, sent(), other()),
            (Some(OTHER), 0, sent_after_loss(), other()),
        ] {
            let read = read(None, record_by.and_then(record), changed);
            assert_eq!(commit.answer(read, sent), expected);
        }
    }
}
