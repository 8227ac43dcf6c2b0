//! Reads pages of the table: to list leases, watch rows, sweep rows of crashed holders, and delete
//! old records of messages.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use mysql::Row as SqlRow;

use super::{Store, StoreError};
use crate::db::{Packet, Value, columns};
use crate::lease::{Holding, Id, Row, RowVersion, Session};

/// Rows on a page of a sweep, or of a list for one device: they take the database a millisecond or
/// two.
const SCAN_ROWS: u64 = 1_000;

/// Records of answered messages that one transaction deletes: few enough to hold locks for only
/// milliseconds, enough to delete thousands per second.
const FORGET_RECORDS: u64 = 100;

/// Rows that one statement watches: some kilobytes of text, and half of the possible waiters.
const WATCH_ROWS: usize = 1_000;

/// Some of the leases that hold now, in the order of their rows' keys.
#[derive(Debug)]
pub struct Page {
    /// The sessions, as they are stored, with their holders.
    pub holdings: Vec<(Session, Holding)>,
    /// The key that the next page begins after; `None` on the last page.
    pub next: Option<u64>,
}

/// The result of sweeping one page.
#[derive(Debug)]
pub struct Swept {
    /// The sessions whose rows were deleted.
    pub sessions: Vec<Session>,
    /// Rows that hold their session.
    pub held: i64,
    /// The key that the next page begins after; `None` on the last page.
    pub next: Option<u64>,
}

/// A row of `sql/lease/list.sql`.
struct ListedRow {
    session: Session,
    /// Whether the row belongs to the device that the list is for.
    matches: bool,
    row: Row,
}

impl ListedRow {
    fn read(row: SqlRow, has_server_zone: bool) -> mysql::Result<Self> {
        let (key, stored, age_us, clock_us, id_prospect, id_device, matches, zone_ahead_us) =
            columns(row)?;
        let session = Session {
            id_device: Id::from_column(id_device),
            id_prospect: Id::from_column(id_prospect),
        };
        let mut row = Row::new(key, stored, age_us, clock_us);
        if has_server_zone {
            row.apply_zone(zone_ahead_us);
        }
        Ok(Self { session, matches, row })
    }
}

impl Store {
    /// A page of the leases that hold now; only those of `device`, if it is set.
    pub fn list(&self, device: Option<&Id>, after: u64, limit: u64) -> Result<Page, StoreError> {
        let has_server_zone = self.statements()?.has_server_zone();
        let mut page = Page { holdings: Vec::new(), next: None };
        // Few of the rows on a page may belong to the device, so read more rows at a time.
        let rows = if device.is_some() { SCAN_ROWS.max(limit) } else { limit };
        let read_at = Instant::now();
        // Read one more row, to find out whether there is a next page.
        let mut found = self.rows(device, after, rows + 1)?;
        let is_last = found.len() as u64 <= rows;
        found.truncate(usize::try_from(rows).unwrap_or(usize::MAX));
        let mut found = found.into_iter();
        for row in found.by_ref() {
            let ListedRow { session, matches, row } = ListedRow::read(row, has_server_zone)?;
            page.next = Some(row.key);
            if let (true, Some(holding)) = (matches, row.holding(read_at)) {
                page.holdings.push((session, holding));
                if page.holdings.len() as u64 == limit {
                    break;
                }
            }
        }
        if is_last && found.len() == 0 {
            page.next = None;
        }
        Ok(page)
    }

    fn rows(&self, device: Option<&Id>, after: u64, limit: u64) -> Result<Vec<SqlRow>, StoreError> {
        let statements = self.statements()?;
        let values = [
            ("id_device", device.map_or(Value::Null, |id| Value::Text(id.as_str()))),
            ("after", Value::Number(after)),
            ("limit", Value::Number(limit)),
        ];
        self.query(&statements.list, &values)
    }

    /// Returns those rows that have changed.
    pub fn changed(&self, rows: &[RowVersion]) -> Result<Vec<RowVersion>, StoreError> {
        let statements = self.statements()?;
        let mut changed = Vec::new();
        for rows in rows.chunks(WATCH_ROWS) {
            let keys: Vec<_> = rows.iter().map(|row| Value::Number(row.key)).collect();
            let mut unchanged = HashSet::new();
            for row in self.query(&statements.watch, &[("keys", Value::List(&keys))])? {
                let (key, stored): (_, Vec<u8>) = columns(row)?;
                unchanged.insert(RowVersion::new(key, &stored));
            }
            changed.extend(rows.iter().filter(|row| !unchanged.contains(row)));
        }
        Ok(changed)
    }

    /// Deletes the rows of crashed holders that expired long enough ago, on the page of the table
    /// after the key `after`.
    pub fn sweep(&self, after: u64) -> Result<Swept, StoreError> {
        let statements = self.statements()?;
        let found = self.rows(None, after, SCAN_ROWS)?;
        let is_full = found.len() as u64 == SCAN_ROWS;
        let mut swept = Swept { sessions: Vec::new(), held: 0, next: None };
        for row in found {
            let ListedRow { row, session, .. } =
                ListedRow::read(row, statements.has_server_zone())?;
            swept.next = Some(row.key);
            swept.held += i64::from(row.remaining().is_some());
            if row.is_abandoned() {
                // One row per transaction, so that no other operation waits for its lock.
                let mut packet = Packet::for_writable_server();
                statements.append_delete(&session, &row, &mut packet);
                let Ok(mut connection) = self.pooled(Instant::now()) else {
                    break;
                };
                // If another program holds a lock on the row, the next sweep deletes it.
                let deleted = connection.run(&packet).unwrap_or_default();
                if deleted.iter().any(|reply| reply.affected == 1) {
                    swept.sessions.push(session);
                }
            }
        }
        if !is_full {
            swept.next = None;
        }
        Ok(swept)
    }

    /// Deletes some of the records that are older than `kept`. Returns how many.
    pub fn forget_messages(&self, kept: Duration) -> Result<u64, StoreError> {
        let statements = self.statements()?;
        if !self.kept_messages() {
            return Ok(0);
        }
        let kept_us = u64::try_from(kept.as_micros()).unwrap_or(u64::MAX);
        let values =
            [("kept_us", Value::Number(kept_us)), ("limit", Value::Number(FORGET_RECORDS))];
        let old = self.query(&statements.old_messages, &values)?;
        if old.is_empty() {
            return Ok(0);
        }
        // These locks delay no commit: no provider delivers messages this old.
        let mut packet = Packet::for_writable_server();
        packet.push("START TRANSACTION");
        for row in old {
            let (prospect, device, message_id, committed_us): (String, String, Vec<u8>, u64) =
                columns(row)?;
            let values = [
                ("id_prospect", Value::Text(&prospect)),
                ("id_device", Value::Text(&device)),
                ("message_id", Value::Bytes(&message_id)),
                ("committed_us", Value::Number(committed_us)),
            ];
            statements.forget_message.write(&mut packet, &values);
        }
        packet.push("COMMIT");
        let mut connection = self.pooled(Instant::now())?;
        let deleted = connection.run(&packet).map_err(|failed| {
            // The transaction ends with the connection.
            connection.discard();
            failed.error
        })?;
        Ok(deleted.iter().map(|reply| reply.affected).sum())
    }
}
