use super::{Message, OwnerToken, Read, Record, Sent, Session};

/// Record that a message is answered, as the one worker that may answer it.
#[derive(Clone, Debug)]
pub struct Commit {
    pub session: Session,
    pub owner_token: OwnerToken,
    pub message: Message,
}

/// The answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    New,
    /// The caller has committed it before: an answer was lost and asked for again.
    Again,
    /// The lease is not the caller's any more, or it expired; nothing was recorded.
    Lost,
    Duplicate(Record),
}

impl Commit {
    /// What the record behind the write says, and whether the write made it.
    pub(crate) fn answer(&self, read: Read, sent: Sent) -> Committed {
        match read.record {
            Some(stored) if !stored.is_by(&self.owner_token) => Committed::Duplicate(stored.record),
            Some(_) if read.changed > 0 || sent.again => Committed::New,
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
    fn the_record_behind_the_write_is_the_answer() {
        let commit = Commit { session: session(), owner_token: owner_token(), message: message() };
        let answer = |by: Option<&str>, changed, sent| {
            commit.answer(read(None, by.and_then(record), changed), sent)
        };
        assert_eq!(answer(Some(OWNER), 1, sent()), Committed::New);
        assert_eq!(answer(Some(OWNER), 0, sent()), Committed::Again);
        assert_eq!(answer(Some(OWNER), 0, sent_again()), Committed::New);
        assert_eq!(answer(None, 0, sent()), Committed::Lost);
        assert_eq!(answer(None, 0, sent_again()), Committed::Lost);
        for sent in [sent(), sent_again()] {
            let by_another = answer(Some(OTHER), 0, sent);
            assert!(matches!(by_another, Committed::Duplicate(_)));
        }
    }
}
