//! What is read from the server and its tables. Nothing is judged here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mysql::prelude::FromRow;

use super::rights::Rights;
use super::{Messages, Writes};
use crate::db::Table;
use crate::db::{self, Connection, Statement, Sysdate, Value};
use crate::lease;

/// Clocks that differ by more than this get a warning, in seconds. Leases depend only on the
/// database's clock.
pub const CLOCK_TOLERANCE_S: u64 = 5;

/// The columns of a session's unique key, in alphabetical order.
const SESSION_COLUMNS: &str = "id_device,id_prospect";

/// What the findings are derived from.
pub struct Facts<'a> {
    pub version: String,
    /// The name of the server's own time zone.
    pub zone: String,
    pub offset_minutes: i64,
    /// The time zone that the operator has set, as in `+02:00`.
    pub configured_offset: Option<&'a str>,
    pub sysdate: Sysdate,
    /// Whether a proxy is in between that has connections of its own to the server.
    pub is_proxied: bool,
    /// The database's clock, in microseconds since 1970.
    pub clock_us: u64,
    /// This machine's clock at the same time.
    pub local_clock_us: u64,
    /// Names and values.
    pub variables: Vec<(String, String)>,
    pub table_name: &'a str,
    /// `None` if the table does not exist, or this user has no right on it.
    pub table: Option<TableFacts>,
    /// `None` if nothing could be tried on the table.
    pub rights: Option<Rights>,
    /// Rows dated further ahead than a lease can be: how many, and prospect and device of one.
    pub rows_ahead: Option<(u64, String, String)>,
    pub messages: Messages,
}

impl<'a> Facts<'a> {
    /// Reads the server and the shape of a table; what can be tried on the table comes later.
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
        // If the server refuses this, the counter may only be out of date.
        let fresh = Statement::new(include_str!("../../sql/check/fresh_auto_increment.sql"), &[]);
        let _ = db.query(&fresh, &[]);
        Ok(Self {
            version,
            zone,
            offset_minutes: offset_minutes.unwrap_or(0),
            configured_offset,
            sysdate: db.sysdate,
            is_proxied: db.id().number.is_none(),
            clock_us,
            local_clock_us: u64::try_from(local.as_micros()).unwrap_or(u64::MAX),
            variables,
            table_name,
            table: TableFacts::read(db, table_name)?,
            rights: None,
            rows_ahead: None,
            messages: Messages::Unknown,
        })
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

/// A table's shape.
#[derive(Default)]
pub struct TableFacts {
    pub engine: String,
    /// The next AUTO_INCREMENT id.
    pub next_id: u64,
    pub columns: Vec<Column>,
    pub unique_keys: Vec<UniqueKey>,
    pub triggers: Vec<String>,
}

pub struct Column {
    pub name: String,
    pub data_type: String,
    /// In characters; 0 if it is no text.
    pub width: u64,
    /// Whether an INSERT may leave it out.
    pub omittable: bool,
    pub nullable: bool,
    /// Whether it is AUTO_INCREMENT.
    pub counts_up: bool,
    /// Empty if it is no text.
    pub collation: String,
    /// The highest value, if it is an integer.
    pub max: u64,
}

pub struct UniqueKey {
    pub name: String,
    /// In alphabetical order, joined by commas.
    pub columns: String,
    /// Whether only the beginning of a column counts.
    pub is_prefix: bool,
}

impl TableFacts {
    /// `None` if the table does not exist.
    pub fn read(db: &mut Connection, table: &str) -> mysql::Result<Option<Self>> {
        let status = include_str!("../../sql/check/table_status.sql");
        let Some((engine, next_id)) = rows(db, status, table, |row| row)?.pop() else {
            return Ok(None);
        };
        let columns = rows(db, include_str!("../../sql/check/table_columns.sql"), table, |row| {
            let (name, data_type, width, omittable, nullable, counts_up, collation, max) = row;
            Column { name, data_type, width, omittable, nullable, counts_up, collation, max }
        })?;
        let keys = include_str!("../../sql/check/table_unique_keys.sql");
        let unique_keys = rows(db, keys, table, |(name, columns, is_prefix)| UniqueKey {
            name,
            columns,
            is_prefix,
        })?;
        let triggers = include_str!("../../sql/check/table_triggers.sql");
        let triggers = rows(db, triggers, table, |(name,)| name)?;
        Ok(Some(Self { engine, next_id, columns, unique_keys, triggers }))
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The AUTO_INCREMENT column that alone is the primary key.
    pub fn primary(&self) -> Option<&Column> {
        let key = self.unique_keys.iter().find(|key| key.name == "PRIMARY")?;
        self.column(&key.columns).filter(|column| column.counts_up)
    }

    /// The unique keys besides the primary key.
    pub fn other_keys(&self) -> impl Iterator<Item = &UniqueKey> {
        self.unique_keys.iter().filter(|key| key.name != "PRIMARY")
    }

    /// The key that makes a session unique.
    pub fn session_key(&self) -> Option<&UniqueKey> {
        self.other_keys().find(|key| key.columns == SESSION_COLUMNS && !key.is_prefix)
    }
}

/// The rows of a statement of `sql/check/`.
pub fn rows<T: FromRow, U>(
    db: &mut Connection,
    file: &str,
    table: &str,
    read: impl Fn(T) -> U,
) -> mysql::Result<Vec<U>> {
    let longest_s = (lease::TTL_MAX_MS - lease::HOLD_MS) / 1_000 + CLOCK_TOLERANCE_S;
    let values = [
        ("table", Value::Text(table)),
        ("lease_chars", Value::Number(lease::STORED_CHARS as u64)),
        ("ahead_s", Value::Number(longest_s)),
        ("clock_s", Value::Number(CLOCK_TOLERANCE_S)),
    ];
    let rows = db.query(&Statement::new(file, &[("table", table)]), &values)?;
    rows.into_iter().map(|row| db::columns(row).map(&read)).collect()
}
