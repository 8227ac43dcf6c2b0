//! Finds out the rights of this user: tries statements on a session that does not exist.

use super::Writes;
use crate::db::Table;
use crate::db::{Connection, ErrorKind, Statement, Value, cause, columns, quoted};

/// The statements of leases; the first one reads.
pub const LEASE_STATEMENTS: [&str; 3] = [
    include_str!("../../sql/lease/list.sql"),
    include_str!("../../sql/check/try_insert_update.sql"),
    include_str!("../../sql/lease/may_write.sql"),
];

/// The statements of answered messages; the first one reads.
pub const MESSAGE_STATEMENTS: [&str; 3] = [
    include_str!("../../sql/message/read.sql"),
    include_str!("../../sql/message/record_on_commit.sql"),
    include_str!("../../sql/message/forget.sql"),
];

const NOBODY: [(&str, Value); 8] = [
    ("id_prospect", Value::Text("")),
    ("id_device", Value::Text("")),
    ("after", Value::Number(0)),
    ("limit", Value::Number(1)),
    ("message_id", Value::Bytes(b"")),
    ("owner_token", Value::Bytes(b"")),
    ("committed_us", Value::Number(0)),
    ("result", Value::Null),
];

/// The rights of this user on a table.
#[derive(Default)]
pub struct Rights {
    /// Also false if the table is so wrong that its rights cannot be determined.
    pub is_readable: bool,
    /// The database's errors where a right is missing.
    pub denied: Vec<String>,
    /// The database's error if it refuses a statement for another reason.
    pub refused: Option<String>,
    /// The SQL that grants all rights, if one is missing.
    pub grant: String,
    pub writes: Writes,
}

impl Rights {
    /// Tries statements, written for `lock_table`, on a table called `name`. If a problem is
    /// already known (`is_sound` is false), it explains a refused statement.
    pub fn read(
        db: &mut Connection,
        statements: [&str; 3],
        name: &str,
        lock_table: &Table,
        is_sound: bool,
    ) -> mysql::Result<Self> {
        let mut rights = Self { is_readable: true, ..Self::default() };
        for (number, file) in statements.iter().enumerate() {
            let statement = Statement::new(file, &lock_table.names());
            let Err(error) = db.query(&statement, &NOBODY) else { continue };
            match ErrorKind::of(&error) {
                ErrorKind::ReadOnly => rights.writes = Writes::ReadOnly,
                ErrorKind::Refused | ErrorKind::TableChanged if !is_sound => {
                    return Ok(Self { writes: rights.writes, ..Self::default() });
                }
                ErrorKind::Denied => {
                    rights.is_readable &= number > 0;
                    rights.denied.push(cause(&error));
                }
                ErrorKind::Refused | ErrorKind::TableChanged => {
                    rights.is_readable &= number > 0;
                    rights.refused = Some(cause(&error));
                }
                _ => return Err(error),
            }
        }
        if !rights.denied.is_empty() {
            rights.grant = grant(db, name)?;
        }
        Ok(rights)
    }
}

/// The SQL that grants this user all rights that it needs on a table.
pub fn grant(db: &mut Connection, table: &str) -> mysql::Result<String> {
    let names = include_str!("../../sql/check/database_and_user.sql");
    let names = db.query(&Statement::new(names, &[]), &[])?.pop().map(columns).transpose()?;
    let (database, user): (String, String) = names.unwrap_or_default();
    let table = quoted(table);
    Ok(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.{table} TO {user}"))
}
