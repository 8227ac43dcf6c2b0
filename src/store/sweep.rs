//! Deletes what nobody needs any more: the rows of crashed holders, and old records of messages.

use std::time::{Duration, Instant};

use super::list::{ListedRow, SCAN_ROWS};
use super::{Store, StoreError};
use crate::db::{ErrorKind, Packet, Value, cause, columns};
use crate::lease::{Row, Session};

/// How long a crashed holder's row stays after its expiry. An acquire that finds it answers
/// `takeover`, which tells the bot that a worker died.
const SWEPT_AFTER: Duration = Duration::from_secs(5 * 60);

/// Records of answered messages that one transaction deletes: few enough to hold locks for only
/// milliseconds, enough to delete thousands per second.
const FORGET_RECORDS: u64 = 100;

/// The result of sweeping one page.
#[derive(Debug)]
pub struct Swept {
    /// The sessions whose rows were deleted.
    pub sessions: Vec<Session>,
    /// Rows that hold their session.
    pub held: i64,
    /// The last error of a deletion that the database refused.
    pub refused: Option<String>,
    /// The key that the next page begins after; `None` on the last page.
    pub next: Option<i64>,
}

/// Whether the row of a crashed holder may be deleted.
pub fn is_abandoned(row: &Row) -> bool {
    row.overdue().is_some_and(|overdue| overdue > SWEPT_AFTER)
}

impl Store {
    /// Deletes the rows of crashed holders that expired long enough ago, on the page of the table
    /// after the key `after`.
    pub fn sweep(&self, after: i64) -> Result<Swept, StoreError> {
        let statements = self.statements()?;
        let found = self.rows(None, after, SCAN_ROWS)?;
        let is_full = found.len() as u64 == SCAN_ROWS;
        let mut swept = Swept { sessions: Vec::new(), held: 0, refused: None, next: None };
        for ListedRow { row, session, .. } in found {
            swept.next = Some(row.key);
            swept.held += i64::from(row.remaining().is_some());
            if is_abandoned(&row) {
                // One row per transaction, so that no other operation waits for its lock.
                let mut packet = Packet::for_writable_server();
                statements.append_delete(&session, &row, &mut packet);
                let Ok(mut connection) = self.pooled(Instant::now()) else {
                    break;
                };
                match connection.run(&packet) {
                    Ok(deleted) if deleted.iter().any(|reply| reply.affected == 1) => {
                        swept.sessions.push(session);
                    }
                    Err(failed) if ErrorKind::of(&failed.error) == ErrorKind::Refused => {
                        swept.refused = Some(cause(&failed.error));
                    }
                    // It has changed, or another program holds a lock on it. The next sweep
                    // deletes it if it is still there.
                    Ok(_) | Err(_) => {}
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
        if !self.message_table_was_usable() {
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
