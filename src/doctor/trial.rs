//! Tries to write a lease and a record of a message. A table can look right and refuse them, or
//! change them, because of a condition, a trigger or a generated column.

use crate::db::{Connection, ErrorKind, Packet, Statement, Table, Value, cause};
use crate::lease::{self, OwnerToken, TTL_DEFAULT_MS, Ttl};

/// Both ids of a session that nobody uses.
const NOBODY: &str = "session-lock check";

const IS_CHANGED: &str = "what was written is not in its row: a trigger may change it";

/// Why a lease cannot be written.
#[derive(Debug)]
pub struct Refusal {
    pub cause: String,
    /// What refused the values of the row, if it may accept those of another session.
    pub by: Option<RefusedBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// A condition or a foreign key.
    Constraint,
    /// `SIGNAL` in a trigger.
    Trigger,
}

impl RefusedBy {
    fn of(error: &mysql::Error) -> Option<Self> {
        let mysql::Error::MySqlError(server) = error else { return None };
        match server.code {
            1452 | 3819 | 4025 => Some(Self::Constraint),
            1644 => Some(Self::Trigger),
            _ => None,
        }
    }
}

/// The result of writing a record.
pub enum Record {
    Written,
    /// The server did not finish the write. The connection is lost.
    Hangs,
    Refused(String),
}

/// Acquires, renews and releases a lease in a transaction that is rolled back.
pub fn write_lease(db: &mut Connection, table: &Table) -> mysql::Result<Option<Refusal>> {
    let owner_token = OwnerToken::draw();
    let ttl = Ttl::default_within(TTL_DEFAULT_MS);
    let claim = lease::claim(ttl, &owner_token);
    let shift_us = Value::Signed(lease::date_shift_us(ttl.as_ms()));
    let values = [
        ("id_prospect", Value::Text(NOBODY)),
        ("id_device", Value::Text(NOBODY)),
        ("owner_token", Value::Bytes(owner_token.secret().as_bytes())),
        ("key", Value::Number(0)),
        ("claim", Value::Bytes(claim.as_bytes())),
        ("mark", Value::Text(lease::claim_mark())),
        ("stored", Value::Null),
        ("shift_us", shift_us),
        ("max_shift_us", shift_us),
        ("max_hold_us", Value::Number(ttl.as_ms() * 1_000)),
        ("rows", Value::Number(1)),
    ];
    let mut packet = Packet::default();
    packet.push(include_str!("../../sql/check/allow_id_0.sql"));
    packet.push("START TRANSACTION");
    for file in [
        include_str!("../../sql/lease/acquire.sql"),
        include_str!("../../sql/lease/renew.sql"),
        include_str!("../../sql/lease/release.sql"),
        include_str!("../../sql/lease/all_released.sql"),
    ] {
        Statement::new(file, &table.names()).write(&mut packet, &values);
    }
    let result = db.run(&packet).map_err(|failed| failed.error);
    if let Err(error) = &result
        && ErrorKind::of(error) == ErrorKind::ConnectionLost
    {
        return result.map(|_| None);
    }
    let mut end = Packet::default();
    end.push("ROLLBACK");
    end.push("SET sql_mode = @sql_mode");
    db.run(&end).map_err(|failed| failed.error)?;
    let Err(error) = result else { return Ok(None) };
    let by = RefusedBy::of(&error);
    let cause = match ErrorKind::of(&error) {
        ErrorKind::RowLocked | ErrorKind::Deadlock | ErrorKind::ReadOnly => return Ok(None),
        ErrorKind::GuardFailed if has_id_0(db, table)? => return Ok(None),
        ErrorKind::GuardFailed => IS_CHANGED.to_owned(),
        _ => cause(&error),
    };
    Ok(Some(Refusal { cause, by }))
}

/// Whether a row has the id 0, so that no other can be inserted with it.
fn has_id_0(db: &mut Connection, table: &Table) -> mysql::Result<bool> {
    let list = Statement::new(include_str!("../../sql/lease/list.sql"), &table.names());
    let values =
        [("after", Value::Signed(-1)), ("limit", Value::Number(1)), ("id_device", Value::Null)];
    let row = db.query(&list, &values)?.pop();
    Ok(row.and_then(|row| row.get::<u64, _>(0)) == Some(0))
}

/// Writes a record of a message, and deletes it in the same transaction.
pub fn write_record(db: &mut Connection) -> mysql::Result<Record> {
    let [owner_token, message_id] = [OwnerToken::draw(), OwnerToken::draw()];
    let values = [
        ("id_prospect", Value::Text(NOBODY)),
        ("id_device", Value::Text(NOBODY)),
        ("message_id", Value::Bytes(message_id.secret().as_bytes())),
        ("owner_token", Value::Bytes(owner_token.secret().as_bytes())),
        ("committed_us", Value::Number(0)),
        ("rows", Value::Number(1)),
    ];
    let mut packet = Packet::default();
    packet.push("START TRANSACTION");
    for file in [
        include_str!("../../sql/check/write_record.sql"),
        include_str!("../../sql/message/read.sql"),
        include_str!("../../sql/message/forget.sql"),
        include_str!("../../sql/lease/all_released.sql"),
    ] {
        Statement::new(file, &[]).write(&mut packet, &values);
    }
    packet.push("COMMIT");
    let error = match db.run(&packet) {
        Ok(replies) => {
            let read = replies[2].rows.first().and_then(|row| row.get::<Vec<u8>, _>(0));
            let is_same = read.as_deref() == Some(owner_token.secret().as_bytes());
            return Ok(if is_same { Record::Written } else { is_changed() });
        }
        Err(failed) => failed.error,
    };
    match ErrorKind::of(&error) {
        ErrorKind::ConnectionLost => {
            db.give_up();
            return Ok(Record::Hangs);
        }
        // The connection is closed already.
        ErrorKind::ReadOnly => return Ok(Record::Written),
        _ => {}
    }
    let mut end = Packet::default();
    end.push("ROLLBACK");
    db.run(&end).map_err(|failed| failed.error)?;
    Ok(match ErrorKind::of(&error) {
        ErrorKind::RowLocked | ErrorKind::Deadlock => Record::Written,
        ErrorKind::GuardFailed => is_changed(),
        _ => Record::Refused(cause(&error)),
    })
}

fn is_changed() -> Record {
    Record::Refused(IS_CHANGED.to_owned())
}
