//! Creates the tables that are missing. An existing one is not changed.

use super::facts::TableFacts;
use super::rights::grant;
use super::shape;
use crate::db::{Connection, ErrorKind, MESSAGE_TABLE, Packet, Statement, cause, columns};

const LOCK_TABLE: &str = include_str!("../../sql/schema/lock_table.sql");

const MESSAGES: &str = include_str!("../../sql/schema/message_table.sql");

/// The result of [`migrate`].
#[derive(Debug, Default)]
pub struct Migrated {
    /// The tables that were created.
    pub created: Vec<String>,
    /// The table that could not be created, and why.
    pub failed: Option<(String, String)>,
    /// The statements for an administrator, if this user may not create tables.
    pub sql: Vec<String>,
}

/// Creates the lock table called `name` and the table of messages, unless they exist. Fails if the
/// database does not answer.
pub fn migrate(connection: &mut Connection, name: &str) -> mysql::Result<Migrated> {
    let mut migrated = Migrated::default();
    // If both tables exist, a user who may not create tables gets no error.
    for (table, file) in [(name, LOCK_TABLE), (MESSAGE_TABLE, MESSAGES)] {
        if TableFacts::read(connection, table)?.is_some() {
            continue;
        }
        let statement = match creation(connection, file, name)? {
            Ok(statement) => statement,
            Err(why) => {
                migrated.failed.get_or_insert((table.to_owned(), why));
                break;
            }
        };
        let is_denied = !migrated.sql.is_empty();
        if !is_denied {
            match connection.query(&statement, &[]) {
                Ok(_) => {
                    migrated.created.push(table.to_owned());
                    continue;
                }
                Err(error) => {
                    migrated.failed = Some((table.to_owned(), cause(&error)));
                    match ErrorKind::of(&error) {
                        ErrorKind::Denied => {}
                        ErrorKind::ConnectionLost => return Err(error),
                        _ => break,
                    }
                }
            }
        }
        let mut packet = Packet::default();
        statement.write(&mut packet, &[]);
        migrated.sql.extend([packet.text().to_owned(), grant(connection, table)?]);
    }
    Ok(migrated)
}

/// The statement that creates a table. Its ids have the collations of the lock table called `name`,
/// or the database's default if that table does not exist. The error says why there is no
/// statement.
fn creation(
    connection: &mut Connection,
    file: &str,
    name: &str,
) -> mysql::Result<Result<Statement, String>> {
    let defaults = Statement::new(include_str!("../../sql/schema/defaults.sql"), &[]);
    let row = connection.query(&defaults, &[])?.pop().map(columns).transpose()?;
    let (database, mut default): (String, String) = row.unwrap_or_default();
    if default == "binary" {
        // Text columns would be bytes.
        shape::LEASE_COLLATION.clone_into(&mut default);
    }
    let lock_table = TableFacts::read(connection, name)?;
    if lock_table.as_ref().is_some_and(|table| table.columns.is_empty()) {
        return Ok(Err(format!("{name} exists, but {}", shape::NO_COLUMNS)));
    }
    let mut collations = Vec::new();
    for id in ["id_prospect", "id_device"] {
        let found = lock_table.as_ref().map(|table| table.column(id).map(|id| &id.collation));
        match found {
            None => collations.push(default.clone()),
            Some(Some(collation)) if !collation.is_empty() => collations.push(collation.clone()),
            _ => {
                let why = format!("{name} has no text column {id}: session-lock check says more");
                return Ok(Err(why));
            }
        }
    }
    let charset = |collation: &str| collation.split('_').next().unwrap_or_default().to_owned();
    let lease = if shape::is_wide(&default) { shape::LEASE_COLLATION } else { &default };
    let identifiers = [
        ("database", database.as_str()),
        ("table", name),
        ("lease_charset", &charset(lease)),
        ("lease_collation", lease),
        ("prospect_charset", &charset(&collations[0])),
        ("prospect_collation", &collations[0]),
        ("device_charset", &charset(&collations[1])),
        ("device_collation", &collations[1]),
    ];
    Ok(Ok(Statement::new(file, &identifiers)))
}
