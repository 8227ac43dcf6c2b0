//! The replies to a packet: which rows and counts are whose.

use std::collections::HashMap;

use super::attempt::Attempt;
use crate::db::Table;
use crate::db::{Reply, columns};
use crate::lease::{Read, Row, StoredRecord};

/// Where in a packet's replies the rows and the records are.
#[derive(Default)]
pub(super) struct Reads {
    /// The operations that it is about, by their places.
    pub members: Vec<usize>,
    pub rows: Option<usize>,
    pub records: Option<usize>,
}

/// Where in a packet's replies each operation's own are.
#[derive(Default)]
pub(super) struct Layout {
    /// The statement whose count is the operation's, if it has one.
    pub counts: Vec<Option<usize>>,
    pub reads: Reads,
    pub new_ids: Vec<u64>,
    /// Whether it has one INSERT and nothing else.
    pub only_inserts: bool,
}

impl Layout {
    /// What came back for each of these operations. `None` for one that cannot be told from others.
    pub fn read(
        &self,
        attempts: &[&mut Attempt],
        replies: Vec<Reply>,
        table: &Table,
    ) -> mysql::Result<Vec<Option<Read>>> {
        let affected: Vec<_> = replies.iter().map(|reply| reply.affected).collect();
        let mut reads = self.reads.read(attempts, replies, table)?;
        for ((read, count), attempt) in reads.iter_mut().zip(&self.counts).zip(attempts) {
            // One that several share changed a row of each.
            let changed = count.map_or(0, |at| affected[at]);
            match read {
                // Its row came back under another spelling of the session.
                Some(read) if changed > 0 && attempt.reads_row() && read.row.is_none() => {}
                Some(read) => {
                    read.changed = changed;
                    continue;
                }
                None => {}
            }
            *read = None;
        }
        Ok(reads)
    }

    /// The id and the fencing token of the row that the packet's one INSERT wrote, if it wrote one.
    pub fn inserted(&self, replies: &[Reply]) -> Option<(u64, u64)> {
        /// One row inserted, which counts 1, and dated, which counts 2.
        const INSERTED_AND_DATED: u64 = 3;
        let reply = replies
            .first()
            .filter(|reply| reply.affected == INSERTED_AND_DATED && reply.last_insert_id > 0)?;
        Some((*self.new_ids.first()?, reply.last_insert_id))
    }
}

impl Reads {
    /// What was read for each of these operations. If a row belongs to none of them, or to several
    /// (the column's collation takes more texts for the same than we do), `None` for those without a row:
    /// alone, an operation knows that a row is its own.
    pub fn read(
        &self,
        attempts: &[&mut Attempt],
        mut replies: Vec<Reply>,
        table: &Table,
    ) -> mysql::Result<Vec<Option<Read>>> {
        let owners = Owners::new(attempts, &self.members, table);
        let mut take = |at: Option<usize>| {
            at.map_or_else(Vec::new, |at| std::mem::take(&mut replies[at].rows))
        };
        let mut reads: Vec<_> = attempts.iter().map(|_| Read::default()).collect();
        let (mut has_foreign_row, mut has_foreign_record) = (false, false);
        for row in take(self.rows) {
            let (key, stored, prospect, device, words): (_, _, String, String, String) =
                columns(row)?;
            let Some(at) = owners.find(&prospect, &device) else {
                has_foreign_row = true;
                continue;
            };
            let Some((age_us, clock_us, packet_clock_us, takes_writes)) = parse_words(&words)
            else {
                let unexpected = format!("the database answers {words:?} to sql/lease/read.sql");
                return Err(std::io::Error::other(unexpected).into());
            };
            reads[at].row = Some(Row::new(key, stored, age_us, clock_us));
            reads[at].began_us = packet_clock_us;
            reads[at].takes_writes = takes_writes;
        }
        for row in take(self.records) {
            let (owner_token, age_us, result, prospect, device, message_id): (
                _,
                _,
                _,
                String,
                String,
                Vec<u8>,
            ) = columns(row)?;
            let at = owners.find(&prospect, &device);
            let message = at.and_then(|at| attempts[at].operation.message_id());
            match (at, message) {
                (Some(at), Some(message)) if message.as_str().as_bytes() == message_id => {
                    reads[at].record = Some(StoredRecord::new(owner_token, age_us, result));
                }
                _ => has_foreign_record = true,
            }
        }
        let told = reads.into_iter().zip(attempts).map(|(read, attempt)| {
            let needs_row = attempt.is_reading() || attempt.reads_row();
            let needs_record = attempt.operation.message_id().is_some();
            let is_untold = has_foreign_row && needs_row && read.row.is_none()
                || has_foreign_record && needs_record && read.record.is_none();
            (!is_untold).then_some(read)
        });
        Ok(told.collect())
    }
}

/// The four words of `sql/lease/read.sql`. A row whose age cannot be read must not pass for stale.
fn parse_words(words: &str) -> Option<(Option<i64>, u64, u64, bool)> {
    let mut words = words.split(' ');
    let age_us = match words.next()? {
        "-" => None,
        age_us => Some(age_us.parse().ok()?),
    };
    let clock_us = words.next()?.parse().ok()?;
    let packet_clock_us = words.next()?.parse().ok()?;
    let takes_writes = words.next()? == "1";
    Some((age_us, clock_us, packet_clock_us, takes_writes))
}

/// Which operation a row belongs to, by its ids.
enum Owners<'t> {
    Only(usize),
    /// By one spelling of the ids; `None` for several operations of one session.
    ByIds(&'t Table, HashMap<(String, String), Option<usize>>),
}

impl<'t> Owners<'t> {
    fn new(attempts: &[&mut Attempt], members: &[usize], table: &'t Table) -> Self {
        if let [only] = members {
            return Self::Only(*only);
        }
        let mut owners = HashMap::new();
        for at in members {
            let session = attempts[*at].operation.session();
            let ids = table.name(session.id_prospect.as_str(), session.id_device.as_str());
            let owner = owners.entry(ids);
            owner.and_modify(|owner| *owner = None).or_insert(Some(*at));
        }
        Self::ByIds(table, owners)
    }

    fn find(&self, prospect: &str, device: &str) -> Option<usize> {
        match self {
            Self::Only(at) => Some(*at),
            Self::ByIds(table, owners) => *owners.get(&table.name(prospect, device))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_row_are_read_whole_or_not_at_all() {
        assert_eq!(parse_words("-5 7 0 1"), Some((Some(-5), 7, 0, true)));
        assert_eq!(parse_words("- 7 9 0"), Some((None, 7, 9, false)));
        for unreadable in ["", "5", "5 7", "5 7 0", "x 7 0 1", "5 - 0 1", "5 7 x 1"] {
            assert_eq!(parse_words(unreadable), None, "{unreadable:?}");
        }
    }
}
