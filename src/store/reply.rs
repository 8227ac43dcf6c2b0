//! The replies to a packet: which rows and counts belong to which operation.

use std::collections::HashMap;

use super::attempt::Attempt;
use super::packet::Statements;
use super::spelling::{SessionName, Spellings};
use crate::db::{Reply, columns};
use crate::lease::{FencingToken, Snapshot, StoredRecord};

/// Which replies to a packet contain the rows and the records.
#[derive(Default)]
pub struct Reads {
    pub rows: Option<usize>,
    pub records: Option<usize>,
}

/// Which replies to a packet belong to which operation.
#[derive(Default)]
pub struct Layout {
    /// For each operation the statement whose result is its own, if there is one: for an acquire
    /// `sql/lease/written.sql`, for others the statement whose count of rows is the result.
    pub own: Vec<Option<usize>>,
    pub reads: Reads,
    pub new_ids: Vec<i64>,
    /// Whether the packet is a single INSERT.
    pub is_plain_insert: bool,
}

impl Layout {
    /// What the replies say of each of these operations; `None` if they cannot be told from
    /// another's.
    pub fn snapshots(
        &self,
        attempts: &[&mut Attempt],
        replies: Vec<Reply>,
        statements: &Statements,
    ) -> mysql::Result<Vec<Option<Snapshot>>> {
        // A DELETE that several releases share has deleted the row of each.
        let own = self.own.iter().map(|own| own.map_or(Ok((0, None)), |at| changes(&replies[at])));
        let own: Vec<_> = own.collect::<mysql::Result<_>>()?;
        let mut snapshots = self.reads.snapshots(attempts, replies, statements)?;
        let is_single = attempts.len() == 1;
        for ((read, (changed, written)), attempt) in snapshots.iter_mut().zip(own).zip(attempts) {
            let wrote = written.is_some() || changed > 0 && attempt.keeps_row();
            // If a row was written but not found, it has another spelling of the session, unless the
            // message has a record: then the packet has deleted the row. A single operation finds
            // its row in any spelling.
            let is_missing = |read: &Snapshot| read.row.is_none() && read.record.is_none();
            read.take_if(|read| !is_single && wrote && is_missing(read));
            if let Some(read) = read {
                (read.changed, read.written) = (changed, written);
            }
        }
        Ok(snapshots)
    }

    /// The id and the fencing token of the row that a single INSERT wrote, if it wrote one.
    pub fn inserted(&self, replies: &[Reply]) -> Option<(i64, u64)> {
        /// The INSERT of the row counts 1, and its update, which dates it, counts 2.
        const INSERTED_AND_DATED: u64 = 3;
        /// The fencing token is the clock, which passed this in 2001. A trigger can replace it by a
        /// row's id.
        const CLOCK_LEAST_US: u64 = 1_000_000_000_000_000;
        let reply = replies.first().filter(|reply| {
            reply.affected == INSERTED_AND_DATED && reply.last_insert_id >= CLOCK_LEAST_US
        })?;
        Some((*self.new_ids.first()?, reply.last_insert_id))
    }
}

/// How many rows a statement changed, and the fencing token that it returns, if it is
/// `sql/lease/written.sql`.
fn changes(reply: &Reply) -> mysql::Result<(u64, Option<FencingToken>)> {
    let written = reply.rows.first().cloned().map(columns::<(u64, u64)>).transpose()?;
    let written = written.filter(|(fencing_us, _)| *fencing_us > 0);
    Ok((reply.affected, written.map(|(fencing_us, _)| FencingToken(fencing_us))))
}

impl Reads {
    /// What was read for each of these operations. If the spelling of a row is not known, it may be
    /// the row of any operation for which none was found. Each of these gets `None`, and runs again
    /// alone, so that any row is its own.
    pub fn snapshots(
        &self,
        attempts: &[&mut Attempt],
        mut replies: Vec<Reply>,
        statements: &Statements,
    ) -> mysql::Result<Vec<Option<Snapshot>>> {
        let operations = BySession::new(attempts, &statements.spellings);
        let mut take = |at: Option<usize>| {
            at.map_or_else(Vec::new, |at| std::mem::take(&mut replies[at].rows))
        };
        let mut reads: Vec<_> = attempts.iter().map(|_| Snapshot::default()).collect();
        let (mut has_foreign_row, mut has_foreign_record) = (false, false);
        for row in take(self.rows) {
            let (key, stored, prospect, device, words) =
                columns::<(_, _, String, String, String)>(row)?;
            let Some(at) = operations.find(&prospect, &device) else {
                has_foreign_row = true;
                continue;
            };
            let (age_us, clock_us, zone_ahead_us) = parse_words(&words).ok_or_else(|| {
                let text = format!("the database answers {words:?} to sql/lease/read.sql");
                std::io::Error::other(text)
            })?;
            let row = statements.row(key, stored, age_us, clock_us, zone_ahead_us);
            reads[at] = Snapshot { row: Some(row), ..Snapshot::default() };
        }
        for row in take(self.records) {
            let (owner_token, age_us, result, prospect, device, message_id) =
                columns::<(_, _, _, String, String, Vec<u8>)>(row)?;
            let at = operations.find(&prospect, &device);
            let message = at.and_then(|at| attempts[at].operation.message_id());
            match (at, message) {
                (Some(at), Some(message)) if message.as_str().as_bytes() == message_id => {
                    reads[at].record = Some(StoredRecord::new(owner_token, age_us, result));
                }
                _ => has_foreign_record = true,
            }
        }
        let reads = reads.into_iter().zip(attempts).map(|(read, attempt)| {
            let needs_row = attempt.is_reading() || attempt.reads_row();
            let needs_record = attempt.operation.message_id().is_some();
            let is_ambiguous = has_foreign_row && needs_row && read.row.is_none()
                || has_foreign_record && needs_record && read.record.is_none();
            (!is_ambiguous).then_some(read)
        });
        Ok(reads.collect())
    }
}

/// Parses the three words of `sql/lease/read.sql`. A row whose age cannot be parsed must not count
/// as stale.
fn parse_words(words: &str) -> Option<(Option<i64>, u64, i64)> {
    let mut words = words.split(' ');
    let age_us = match words.next()? {
        "-" => None,
        age_us => Some(age_us.parse().ok()?),
    };
    let clock_us = words.next()?.parse().ok()?;
    Some((age_us, clock_us, words.next()?.parse().ok()?))
}

/// The indexes of operations by their sessions.
enum BySession<'t> {
    Only,
    /// By the sessions' names; `None` if several operations have one session.
    ByName(&'t Spellings, HashMap<SessionName, Option<usize>>),
}

impl<'t> BySession<'t> {
    fn new(attempts: &[&mut Attempt], spellings: &'t Spellings) -> Self {
        if attempts.len() == 1 {
            return Self::Only;
        }
        let mut operations = HashMap::new();
        for (at, attempt) in attempts.iter().enumerate() {
            let session = attempt.operation.session();
            let (prospect, device) = (session.id_prospect.as_str(), session.id_device.as_str());
            if let Some(name) = spellings.known_name(prospect, device) {
                operations.entry(name).and_modify(|at| *at = None).or_insert(Some(at));
            }
        }
        Self::ByName(spellings, operations)
    }

    fn find(&self, prospect: &str, device: &str) -> Option<usize> {
        match self {
            Self::Only => Some(0),
            Self::ByName(spellings, operations) => {
                *operations.get(&spellings.known_name(prospect, device)?)?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_row_are_parsed_completely_or_not_at_all() {
        assert_eq!(parse_words("-5 7 -3"), Some((Some(-5), 7, -3)));
        assert_eq!(parse_words("- 7 0"), Some((None, 7, 0)));
        for unreadable in ["", "5", "5 7", "x 7 0", "5 - 0", "5 7 x"] {
            assert_eq!(parse_words(unreadable), None, "{unreadable:?}");
        }
    }
}
