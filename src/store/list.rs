//! Reads many rows: lists leases, and watches the rows that waiters wait for.

use std::collections::HashSet;
use std::time::Instant;

use mysql::Row as SqlRow;

use super::packet::Statements;
use super::{Store, StoreError};
use crate::db::{Value, columns};
use crate::lease::{Holding, Id, Row, RowVersion, Session};

/// Rows on a page of a sweep, or of a list for one device: they take the database a millisecond or
/// two.
pub(super) const SCAN_ROWS: u64 = 1_000;

/// Rows that one statement watches: some kilobytes of text, and half of the possible waiters.
const WATCH_ROWS: usize = 1_000;

/// Some of the leases that hold now, in the order of their rows' keys.
#[derive(Debug)]
pub struct Page {
    /// The sessions, as they are stored, with their holders.
    pub holdings: Vec<(Session, Holding)>,
    /// The key that the next page begins after; `None` on the last page.
    pub next: Option<i64>,
}

/// A row of `sql/lease/list.sql`.
pub(super) struct ListedRow {
    pub session: Session,
    /// Whether the row belongs to the device that the list is for.
    matches: bool,
    pub row: Row,
}

impl ListedRow {
    pub fn read(row: SqlRow, statements: &Statements) -> mysql::Result<Self> {
        let (key, stored, age_us, clock_us, id_prospect, id_device, matches, zone_ahead_us) =
            columns(row)?;
        let session = Session {
            id_device: Id::from_column(id_device),
            id_prospect: Id::from_column(id_prospect),
        };
        let row = statements.row(key, stored, age_us, clock_us, zone_ahead_us);
        Ok(Self { session, matches, row })
    }
}

impl Store {
    /// A page of the leases that hold now; only those of `device`, if it is set.
    pub fn list(&self, device: Option<&Id>, after: i64, limit: u64) -> Result<Page, StoreError> {
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
            let ListedRow { session, matches, row } = row;
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

    /// At most `limit` rows, after the key `after`, and whether each is of `device`.
    pub(super) fn rows(
        &self,
        device: Option<&Id>,
        after: i64,
        limit: u64,
    ) -> Result<Vec<ListedRow>, StoreError> {
        let statements = self.statements()?;
        let values = [
            ("id_device", device.map_or(Value::Null, |id| Value::Text(id.as_str()))),
            ("after", Value::Signed(after)),
            ("limit", Value::Number(limit)),
        ];
        let rows = self.query(&statements.list, &values)?.into_iter();
        Ok(rows.map(|row| ListedRow::read(row, &statements)).collect::<mysql::Result<_>>()?)
    }

    /// Returns those rows that have changed.
    pub fn changed(&self, rows: &[RowVersion]) -> Result<Vec<RowVersion>, StoreError> {
        let statements = self.statements()?;
        let mut changed = Vec::new();
        for rows in rows.chunks(WATCH_ROWS) {
            let keys: Vec<_> = rows.iter().map(|row| Value::Signed(row.key)).collect();
            let mut unchanged = HashSet::new();
            for row in self.query(&statements.watch, &[("keys", Value::List(&keys))])? {
                let (key, stored): (_, Vec<u8>) = columns(row)?;
                unchanged.insert(RowVersion::new(key, &stored));
            }
            changed.extend(rows.iter().filter(|row| !unchanged.contains(row)));
        }
        Ok(changed)
    }
}
