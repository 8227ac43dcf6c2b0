//! The facts about the server and its tables. This module only reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mysql::prelude::FromRow;

use super::definition::Definition;
use super::rights::Rights;
use super::{Messages, Writes};
use crate::db::Table;
use crate::db::{self, Connection, ErrorKind, Statement, Value};
use crate::lease;

/// Clocks that differ by more than this get a warning, in seconds. Leases depend only on the
/// database's clock.
pub const CLOCK_TOLERANCE_S: u64 = 5;

/// The maximum number of rows that a statement of `sql/check/` reads. The database reads them in a
/// fraction of the socket timeout.
const ROWS_MAX: u64 = 100_000;

/// The columns of a session's unique key, in alphabetical order.
const SESSION_COLUMNS: &str = "id_device,id_prospect";

/// The facts from which the findings are derived.
pub struct Facts<'a> {
    pub version: String,
    /// The name of the server's own time zone.
    pub zone: String,
    pub offset_minutes: i64,
    /// The time zone that the operator has set, such as `+02:00`.
    pub configured_offset: Option<&'a str>,
    pub is_sysdate_now: bool,
    /// Whether a proxy has its own connections to the server.
    pub is_proxied: bool,
    /// The database's clock, in microseconds since 1970.
    pub clock_us: u64,
    /// This machine's clock at the same time, in microseconds since 1970.
    pub local_clock_us: u64,
    /// Names and values.
    pub variables: Vec<(String, String)>,
    pub table_name: &'a str,
    /// `None` if the table does not exist or this user has no right on it.
    pub table: Option<TableFacts>,
    /// `None` if no statement could be tried on the table.
    pub rights: Option<Rights>,
    /// The highest id that a row has.
    pub highest_id: u64,
    /// Rows that are dated further ahead than a lease can be.
    pub rows_ahead: Option<Rows>,
    /// Rows whose ids cannot have a lease.
    pub rows_refused: Option<Rows>,
    pub messages: Messages,
}

impl<'a> Facts<'a> {
    /// Reads the facts about the server and the shape of a table. The rights on the table are read
    /// later.
    pub fn read(
        db: &mut Connection,
        table_name: &'a str,
        configured_offset: Option<&'a str>,
    ) -> mysql::Result<Self> {
        let status = include_str!("../../sql/check/server_status.sql");
        let status = rows(db, status, "", |row| row)?.pop().unwrap_or_default();
        let (version, zone, offset_minutes, clock_us): (_, _, Option<i64>, _) = status;
        let local = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let variables = include_str!("../../sql/check/server_variables.sql");
        let variables = rows(db, variables, "", |row| row)?;
        // If the server refuses this statement, the counter may be outdated, a key may be missing or
        // cut short, and names in the definition may be unquoted.
        let session = Statement::new(include_str!("../../sql/check/session.sql"), &[]);
        let _ = db.query(&session, &[]);
        Ok(Self {
            version,
            zone,
            offset_minutes: offset_minutes.unwrap_or(0),
            configured_offset,
            is_sysdate_now: db.is_sysdate_now,
            is_proxied: db.id().number.is_none(),
            clock_us,
            local_clock_us: u64::try_from(local.as_micros()).unwrap_or(u64::MAX),
            variables,
            table_name,
            table: TableFacts::read(db, table_name)?,
            rights: None,
            highest_id: 0,
            rows_ahead: None,
            rows_refused: None,
            messages: Messages::Unknown,
        })
    }

    /// Reads the facts about the rows of a table, which must have a usable primary key.
    pub fn read_rows(&mut self, db: &mut Connection, table: &Table) -> mysql::Result<()> {
        let highest = include_str!("../../sql/check/highest_id.sql");
        let highest = db.query(&Statement::new(highest, &table.names()), &[])?.pop();
        // A negative id counts as 0.
        let highest = highest.map(db::columns::<(i128,)>).transpose()?;
        self.highest_id = highest.map_or(0, |(id,)| u64::try_from(id).unwrap_or(0));
        self.rows_ahead = Rows::read(db, include_str!("../../sql/check/rows_ahead.sql"), table)?;
        self.rows_refused =
            Rows::read(db, include_str!("../../sql/check/rows_refused.sql"), table)?;
        Ok(())
    }

    /// Whether a variable of the server has this value.
    pub fn has(&self, variable: &str, value: &str) -> bool {
        self.variables.iter().any(|(name, found)| name == variable && found == value)
    }

    /// The database's clock minus this machine's, in seconds.
    pub fn clock_difference_s(&self) -> f64 {
        let apart = Duration::from_micros(self.clock_us.abs_diff(self.local_clock_us));
        if self.clock_us < self.local_clock_us { -apart.as_secs_f64() } else { apart.as_secs_f64() }
    }

    /// The server's own time zone minus the configured one, in minutes.
    pub fn zone_difference_minutes(&self) -> i64 {
        let minutes = |offset: &str| {
            let (hours, minutes) = offset.split_once(':')?;
            let sign = if hours.starts_with('-') { -1 } else { 1 };
            Some(hours.parse::<i64>().ok()? * 60 + sign * minutes.parse::<i64>().ok()?)
        };
        self.offset_minutes - self.configured_offset.and_then(minutes).unwrap_or(0)
    }

    pub fn writes(&self) -> Writes {
        self.rights.as_ref().map_or(Writes::Accepted, |rights| rights.writes)
    }

    /// The lock table, if it exists and has a usable primary key.
    pub fn lock_table(&self) -> Option<Table> {
        let found = self.table.as_ref()?;
        let primary = found.primary()?;
        let collation =
            |name| found.column(name).map(|column| column.collation.clone()).unwrap_or_default();
        Some(Table {
            name: self.table_name.to_owned(),
            key: primary.name.clone(),
            session_key: found.session_key().map(|key| key.name.clone()).unwrap_or_default(),
            max_key: primary.max,
            next_id: found.next_id,
            has_triggers: !found.triggers.is_empty(),
            device_collation: collation("id_device"),
            prospect_collation: collation("id_prospect"),
        })
    }
}

/// Rows that an operator should check.
#[derive(Debug, Default)]
pub struct Rows {
    pub count: u64,
    /// Whether there are older rows, which were not read.
    pub is_least: bool,
    /// The ids of one of these rows, as stored.
    pub prospect: String,
    pub device: String,
}

impl Rows {
    fn read(db: &mut Connection, file: &str, table: &Table) -> mysql::Result<Option<Self>> {
        let longest_s = (lease::TTL_MAX_MS - lease::HOLD_MS) / 1_000 + CLOCK_TOLERANCE_S;
        let values = [
            ("lease_chars", Value::Number(lease::STORED_CHARS as u64)),
            ("ahead_s", Value::Number(longest_s)),
            ("clock_s", Value::Number(CLOCK_TOLERANCE_S)),
            ("id_max_chars", Value::Number(lease::ID_MAX_CHARS as u64)),
            ("limit", Value::Number(ROWS_MAX)),
        ];
        let found = db.query(&Statement::new(file, &table.names()), &values);
        let row = match found {
            Ok(mut rows) => {
                rows.pop().map(db::columns::<(u64, u64, String, String)>).transpose()?
            }
            // Columns of a wrong type cause this error, and have their own findings.
            Err(error) if ErrorKind::of(&error) == ErrorKind::Refused => None,
            Err(error) => return Err(error),
        };
        Ok(row.map(|(count, looked_at, prospect, device)| Self {
            count,
            is_least: looked_at >= ROWS_MAX,
            prospect,
            device,
        }))
    }
}

/// A table's shape.
#[derive(Default)]
pub struct TableFacts {
    /// As in information_schema: `BASE TABLE`, `VIEW`, `SYSTEM VERSIONED`.
    pub kind: String,
    /// Empty if it has none.
    pub engine: String,
    pub row_format: String,
    /// As in information_schema: `partitioned`, `KEY_BLOCK_SIZE=8`.
    pub options: String,
    /// Empty if this user may not see it.
    pub definition: Definition,
    /// The next AUTO_INCREMENT id.
    pub next_id: u64,
    pub columns: Vec<Column>,
    pub unique_keys: Vec<UniqueKey>,
    pub triggers: Vec<String>,
    /// The foreign keys that refer to the table: table and name.
    pub references: Vec<(String, String)>,
}

pub struct Column {
    pub name: String,
    pub data_type: String,
    /// In characters; 0 if the column is not text.
    pub width: u64,
    /// In bytes; 0 if the column is not text.
    pub bytes: u64,
    /// Whether an INSERT may omit the column.
    pub omittable: bool,
    pub nullable: bool,
    /// Whether the column is AUTO_INCREMENT.
    pub counts_up: bool,
    /// Empty if the column is not text.
    pub collation: String,
    /// The highest value, if the column is an integer.
    pub max: u64,
}

impl Column {
    pub fn is_integer(&self) -> bool {
        ["tinyint", "smallint", "mediumint", "int", "bigint"].contains(&self.data_type.as_str())
    }
}

pub struct UniqueKey {
    pub name: String,
    /// In lower case, in alphabetical order, joined by commas.
    pub columns: String,
    /// Whether only the beginning of a column counts, or only a hash of it.
    pub is_prefix: bool,
}

impl TableFacts {
    /// The column that counts up or could count up: the integer that is the whole primary key.
    pub fn counting(&self) -> Option<&Column> {
        let alone = self.primary_key().and_then(|key| self.column(&key.columns));
        let counts = self.columns.iter().find(|column| column.counts_up);
        counts.or(alone).filter(|column| column.is_integer())
    }

    /// `None` if the table does not exist.
    pub fn read(db: &mut Connection, table: &str) -> mysql::Result<Option<Self>> {
        let status = include_str!("../../sql/check/table_status.sql");
        let Some(status) = rows(db, status, table, |row| row)?.pop() else {
            return Ok(None);
        };
        let (kind, engine, next_id, row_format, options): (String, _, _, _, _) = status;
        let columns = rows(db, include_str!("../../sql/check/table_columns.sql"), table, |row| {
            let (name, data_type, width, bytes, omittable, nullable, counts_up, collation, max) =
                row;
            Column { name, data_type, width, bytes, omittable, nullable, counts_up, collation, max }
        })?;
        let definition = if kind == "VIEW" { Definition::default() } else { definition(db, table) };
        let is_hash = |key: &str| definition.key(key).is_some_and(|words| words.has("HASH"));
        // A versioned table may show the column for the end of a version as the last column of its
        // keys.
        let period = definition.period().unwrap_or_default();
        let keys = include_str!("../../sql/check/table_unique_keys.sql");
        let unique_keys =
            rows(db, keys, table, |(name, columns, is_prefix): (String, String, bool)| {
                let columns = columns.split(',').map(str::to_lowercase);
                let columns = columns
                    .filter(|name| period.last().is_none_or(|end| end.to_lowercase() != *name));
                let columns = columns.collect::<Vec<_>>().join(",");
                UniqueKey { is_prefix: is_prefix || is_hash(&name), name, columns }
            })?;
        let triggers = include_str!("../../sql/check/table_triggers.sql");
        let triggers = rows(db, triggers, table, |(name,)| name)?;
        let references = include_str!("../../sql/check/table_references.sql");
        let references = rows(db, references, table, |reference| reference)?;
        Ok(Some(Self {
            kind,
            engine,
            row_format,
            options,
            definition,
            next_id,
            columns,
            unique_keys,
            triggers,
            references,
        }))
    }

    /// Finds a column by its name, in any letter case, as the database does.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.to_lowercase() == name.to_lowercase())
    }

    /// The AUTO_INCREMENT column that alone is the primary key.
    pub fn primary(&self) -> Option<&Column> {
        self.column(&self.primary_key()?.columns)
            .filter(|column| column.counts_up && column.is_integer())
    }

    /// Whether the primary key makes a session unique.
    pub fn is_keyed_by_session(&self) -> bool {
        self.primary_key().is_some_and(|key| key.columns == SESSION_COLUMNS)
    }

    pub fn primary_key(&self) -> Option<&UniqueKey> {
        self.unique_keys.iter().find(|key| key.name == "PRIMARY")
    }

    /// The unique keys besides the primary key.
    pub fn other_keys(&self) -> impl Iterator<Item = &UniqueKey> {
        self.unique_keys.iter().filter(|key| key.name != "PRIMARY")
    }

    /// The key that makes a session unique.
    pub fn session_key(&self) -> Option<&UniqueKey> {
        self.other_keys().find(|key| key.columns == SESSION_COLUMNS && !key.is_prefix)
    }

    /// A key that should make a session unique, but compares only the beginnings of the ids or has
    /// no order.
    pub fn partial_session_key(&self) -> Option<&UniqueKey> {
        self.other_keys().find(|key| key.columns == SESSION_COLUMNS && key.is_prefix)
    }
}

/// The definition of a table from SHOW CREATE TABLE. Empty if this user may not see it.
fn definition(db: &mut Connection, table: &str) -> Definition {
    let show = include_str!("../../sql/check/table_definition.sql");
    let row = db.query(&Statement::new(show, &[("table", table)]), &[]).ok();
    let row = row.and_then(|mut rows| db::columns::<(String, String)>(rows.pop()?).ok());
    row.map(|(_, text)| Definition::new(&text)).unwrap_or_default()
}

/// The rows of a statement of `sql/check/`.
pub fn rows<T: FromRow, U>(
    db: &mut Connection,
    file: &str,
    table: &str,
    read: impl Fn(T) -> U,
) -> mysql::Result<Vec<U>> {
    let values = [("table", Value::Text(table))];
    let rows = db.query(&Statement::new(file, &[("table", table)]), &values)?;
    rows.into_iter().map(|row| db::columns(row).map(&read)).collect()
}
