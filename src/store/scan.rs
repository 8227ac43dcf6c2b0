//! Pages of the table: who holds what, which rows changed, and what crashed holders left behind.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use mysql::Row as SqlRow;

use super::{Store, StoreError};
use crate::db::{Packet, Value, cause, columns};
use crate::doctor::Messages;
use crate::lease::{Holding, Id, Row, RowVersion, Session};

/// Rows that one page of the table is read in, in the background or for one device: a millisecond
/// or two of the database's time.
const SCAN_ROWS: u64 = 1_000;

/// Records of answered messages that are deleted in one transaction: its locks are gone within
/// milliseconds, and thousands are forgotten in a second all the same.
const FORGET_RECORDS: u64 = 100;

/// Rows that are watched with one statement: some kilobytes of text, and half of all that may wait.
const WATCH_ROWS: usize = 1_000;

/// Some of the leases that hold now, in the order of their rows.
#[derive(Debug)]
pub struct Page {
    /// The sessions as they are stored, and who holds them.
    pub holdings: Vec<(Session, Holding)>,
    /// Where the next page begins; there is none without.
    pub next: Option<u64>,
}

/// What a sweep did.
#[derive(Debug)]
pub struct Swept {
    pub rows: u64,
    /// Where the next page begins; there is none without.
    pub next: Option<u64>,
}

/// A row of the table's list.
struct ListedRow {
    session: Session,
    is_meant: bool,
    row: Row,
}

impl ListedRow {
    fn read(row: SqlRow) -> mysql::Result<Self> {
        let (key, stored, age_us, clock_us, id_prospect, id_device, is_meant) = columns(row)?;
        let session = Session {
            id_device: Id::from_column(id_device),
            id_prospect: Id::from_column(id_prospect),
        };
        let row = Row::new(key, stored, age_us, clock_us);
        Ok(Self { session, is_meant, row })
    }
}

impl Store {
    /// A page of the leases that hold now, those of one device if it is named.
    pub fn list(&self, device: Option<&Id>, after: u64, limit: u64) -> Result<Page, StoreError> {
        let mut page = Page { holdings: Vec::new(), next: None };
        // Of one device's rows, a page of this size may have none.
        let rows = if device.is_some() { SCAN_ROWS.max(limit) } else { limit };
        let device = device.map_or(Value::Null, |id| Value::Text(id.as_str()));
        let values = [
            ("id_device", device),
            ("after", Value::Number(after)),
            // One more, to see whether the table goes on.
            ("limit", Value::Number(rows + 1)),
        ];
        let read_at = Instant::now();
        let mut found = self.query(&self.statements()?.list, &values)?;
        let goes_on = found.len() as u64 > rows;
        found.truncate(usize::try_from(rows).unwrap_or(usize::MAX));
        let mut found = found.into_iter();
        for row in found.by_ref() {
            let row =
                ListedRow::read(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
            page.next = Some(row.row.key);
            if let (true, Some(holding)) = (row.is_meant, row.row.holding(read_at)) {
                page.holdings.push((row.session, holding));
                if page.holdings.len() as u64 == limit {
                    break;
                }
            }
        }
        if !goes_on && found.len() == 0 {
            page.next = None;
        }
        Ok(page)
    }

    /// Which of these rows are not as they were seen any more.
    pub fn changed(&self, rows: &[RowVersion]) -> Result<Vec<RowVersion>, StoreError> {
        let watch = &self.statements()?.watch;
        let mut changed = Vec::new();
        for rows in rows.chunks(WATCH_ROWS) {
            let keys: Vec<_> = rows.iter().map(|row| Value::Number(row.key)).collect();
            let mut unchanged = HashSet::new();
            for row in self.query(watch, &[("keys", Value::List(&keys))])? {
                let (key, stored): (u64, Vec<u8>) =
                    columns(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
                unchanged.insert(RowVersion::new(key, &stored));
            }
            changed.extend(rows.iter().filter(|row| !unchanged.contains(row)));
        }
        Ok(changed)
    }

    /// Deletes the rows of crashed holders behind `after` that expired long enough ago, one page
    /// of the table at a time; how many went, and where the next page begins.
    pub fn sweep(&self, after: u64) -> Result<Swept, StoreError> {
        let statements = self.statements()?;
        let values = [
            ("id_device", Value::Null),
            ("after", Value::Number(after)),
            ("limit", Value::Number(SCAN_ROWS)),
        ];
        let found = self.query(&statements.list, &values)?;
        let is_full = found.len() as u64 == SCAN_ROWS;
        let mut swept = Swept { rows: 0, next: None };
        for row in found {
            let ListedRow { row, session, .. } =
                ListedRow::read(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
            swept.next = Some(row.key);
            if row.is_abandoned() {
                // One at a time, so that it is in nobody's way.
                let mut packet = Packet::default();
                statements.append_delete(&session, &row, &mut packet);
                // One that somebody holds a lock on is for the next sweep.
                let Ok(mut connection) = self.pooled(Instant::now()) else {
                    break;
                };
                let deleted = connection.run(&packet).unwrap_or_default();
                swept.rows += deleted.iter().map(|reply| reply.affected).sum::<u64>();
            }
        }
        if !is_full {
            swept.next = None;
        }
        Ok(swept)
    }

    /// Deletes some of the records of messages that were committed longer ago than this; how many.
    pub fn forget_messages(&self, kept: Duration) -> Result<u64, StoreError> {
        let statements = self.statements()?;
        if self.messages().0 != Messages::Kept {
            return Ok(0);
        }
        let kept_us = u64::try_from(kept.as_micros()).unwrap_or(u64::MAX);
        let values =
            [("kept_us", Value::Number(kept_us)), ("limit", Value::Number(FORGET_RECORDS))];
        // No commit is ever in the way of these: a message so old is not delivered any more.
        let mut packet = Packet::default();
        packet.push("START TRANSACTION");
        for row in self.query(&statements.old_messages, &values)? {
            let (prospect, device, message_id, committed_us): (String, String, Vec<u8>, u64) =
                columns(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
            let values = [
                ("id_prospect", Value::Text(&prospect)),
                ("id_device", Value::Text(&device)),
                ("message_id", Value::Bytes(&message_id)),
                ("committed_us", Value::Number(committed_us)),
            ];
            statements.forget_message.write(&mut packet, &values);
        }
        let found = packet.len() > 1;
        packet.push("COMMIT");
        let deleted = if found {
            let mut connection = self.pooled(Instant::now())?;
            connection.run(&packet).map_err(|failed| {
                // Its transaction ends with it.
                connection.discard();
                StoreError::Unavailable(cause(&failed.error))
            })?
        } else {
            Vec::new()
        };
        Ok(deleted.iter().map(|reply| reply.affected).sum())
    }
}
