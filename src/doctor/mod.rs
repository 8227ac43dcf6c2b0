//! The lock table and its server: what they must be like for the promises to hold, what is wrong
//! with them, and how to mend it. Production tables are used as they stand and never altered.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::db::table::{LetterCase, MESSAGE_TABLE, Table};
use crate::db::{Connection, SYSDATE_IS_NOW, Statement, Sysdate, Trouble, Value, cause, columns};
use crate::lease;

/// Clocks further apart than this are worth a word, in seconds. Only the database's counts.
const CLOCK_TOLERANCE_S: u64 = 5;

/// Names under which a server's own zone is UTC. `GMT` is not among them: Britain's clocks show
/// it in winter, and leave it in summer.
const UTC_NAMES: [&str; 3] = ["UTC", "Etc/UTC", "+00:00"];

const COLUMNS: [&str; 3] = ["id_prospect", "id_device", "timestamp"];

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Good,
    /// Leases work; somebody should look at it.
    Warning,
    /// Leases would not work, or not hold: `serve` refuses to start.
    Problem,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at. Displayed as one line.
#[derive(Clone, Debug)]
pub struct Finding {
    pub verdict: Verdict,
    pub topic: &'static str,
    pub text: String,
    pub sql: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<12} {}", self.verdict, self.topic, self.text)?;
        match &self.sql {
            Some(sql) => write!(f, ": {sql};"),
            None => Ok(()),
        }
    }
}

/// Whether the server takes writes at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// It does.
    #[default]
    Accepted,
    /// A replica, or a failover under way.
    ReadOnly,
}

/// Whether answered messages can be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    /// The database has not been asked yet.
    #[default]
    Unknown,
    Kept,
    /// It is not: what is wrong, and what to do.
    Refused(String),
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of looking.
    pub findings: Vec<Finding>,
    pub table: Option<Table>,
    pub messages: Messages,
    pub writes: Writes,
    /// The used share of the table's ids.
    pub ids_used: Option<f64>,
    /// The database's clock less this machine's, in seconds.
    pub clock_difference_s: Option<f64>,
}

impl Report {
    /// The report on a server that cannot be reached.
    pub fn unreachable(cause: &str) -> Self {
        let mut report = Self::default();
        let text = format!("cannot be reached: {cause}; is it running, and DATABASE_URL right?");
        report.problem("server", text, None);
        report
    }

    fn add(&mut self, verdict: Verdict, topic: &'static str, text: String, sql: Option<String>) {
        self.findings.push(Finding { verdict, topic, text, sql });
    }

    fn good(&mut self, topic: &'static str, text: impl Into<String>) {
        self.add(Verdict::Good, topic, text.into(), None);
    }

    fn warning(
        &mut self,
        topic: &'static str,
        text: impl Into<String>,
        sql: impl Into<Option<String>>,
    ) {
        self.add(Verdict::Warning, topic, text.into(), sql.into());
    }

    fn problem(
        &mut self,
        topic: &'static str,
        text: impl Into<String>,
        sql: impl Into<Option<String>>,
    ) {
        self.add(Verdict::Problem, topic, text.into(), sql.into());
    }

    /// The findings of this verdict.
    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.verdict == verdict)
    }
}

/// Looks at the server and the table called `name`. `configured_offset` is the operator's
/// setting, if there is one.
pub fn inspect(
    connection: &mut Connection,
    name: &str,
    configured_offset: Option<&str>,
) -> mysql::Result<Report> {
    let mut report = Report::default();
    inspect_server(connection, configured_offset, &mut report)?;
    inspect_durability(connection, &mut report)?;
    let Some(table) = inspect_shape(connection, name, &mut report)? else {
        return Ok(report);
    };
    if inspect_rights(connection, &table, &mut report)? {
        inspect_rows(connection, &table, &mut report)?;
    }
    report.messages = inspect_messages(connection, &table)?;
    match report.messages.clone() {
        Messages::Refused(why) => {
            let text = format!("{why}; until then, requests with a message_id are refused");
            report.warning("messages", text, None);
        }
        Messages::Kept | Messages::Unknown => report.good("messages", MESSAGE_TABLE),
    }
    if report.of(Verdict::Problem).next().is_none() {
        report.table = Some(table);
    }
    if report.writes == Writes::ReadOnly {
        let text = "the server is read-only: point DATABASE_URL at the primary, or wait for the failover to end";
        report.problem("writes", text, None);
    }
    Ok(report)
}

/// Creates what is missing.
pub fn migrate(connection: &mut Connection, name: &str) -> mysql::Result<()> {
    for (table, file) in [
        (name, include_str!("../../sql/schema/lock_table.sql")),
        (MESSAGE_TABLE, include_str!("../../sql/schema/message_table.sql")),
    ] {
        // So that a user without the right to create is not refused for nothing.
        if status(connection, table)?.is_none() {
            connection.query(&Statement::new(file, &[("table", name)]), &[])?;
        }
    }
    Ok(())
}

/// A table's engine and its next AUTO_INCREMENT id, if it is there.
fn status(connection: &mut Connection, table: &str) -> mysql::Result<Option<(String, u64)>> {
    let status = Statement::new(include_str!("../../sql/check/table_status.sql"), &[]);
    let mut rows = connection.query(&status, &[("table", Value::Text(table))])?;
    rows.pop().map(columns).transpose()
}

fn inspect_server(
    connection: &mut Connection,
    configured_offset: Option<&str>,
    report: &mut Report,
) -> mysql::Result<()> {
    let status = Statement::new(include_str!("../../sql/check/server_status.sql"), &[]);
    let Some(row) = connection.query(&status, &[])?.pop() else {
        return Ok(());
    };
    let (version, zone, offset_minutes, clock_us): (String, String, Option<i64>, u64) =
        columns(row)?;
    report.good("server", format!("reachable, version {version}"));

    if connection.sysdate == Sysdate::AtTheStart {
        report.problem("clock", SYSDATE_IS_NOW, None);
    }
    let minutes = offset_minutes.unwrap_or(0);
    let sign = if minutes < 0 { '-' } else { '+' };
    let offset = format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
    match configured_offset {
        Some(configured) if configured == offset => {
            report.good("time zone", format!("{configured}, as configured; the database's own is {zone}"));
        }
        Some(configured) => report.warning("time zone", format!(
                "{configured} is configured, but the database's own zone {zone} is at {offset} now: old programs that \
                 write NOW() disagree with our leases; set SESSION_LOCK_TIME_ZONE={offset} if there are any, in all servers alike"
            ), None),
        None if UTC_NAMES.contains(&zone.as_str()) => report.good("time zone", "UTC"),
        None => report.problem("time zone", format!(
                "the database's own zone is {zone} (now {offset}), and old programs write its local time: \
                 set SESSION_LOCK_TIME_ZONE={offset}, or SET GLOBAL time_zone = '+00:00' if no other program minds"
            ), None),
    }

    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ours_us = u64::try_from(ours.as_micros()).unwrap_or(u64::MAX);
    let apart = Duration::from_micros(clock_us.abs_diff(ours_us)).as_secs_f64();
    report.clock_difference_s = Some(if clock_us < ours_us { -apart } else { apart });
    let apart_s = ours.as_secs().abs_diff(clock_us / 1_000_000);
    if apart_s <= CLOCK_TOLERANCE_S {
        report.good("clock", "the database's clock agrees with this machine's");
    } else {
        report.warning("clock", format!("the database's clock and this machine's are {apart_s} s apart; only the database's counts, but check NTP on both"), None);
    }
    Ok(())
}

fn inspect_durability(connection: &mut Connection, report: &mut Report) -> mysql::Result<()> {
    let variables = Statement::new(include_str!("../../sql/check/server_variables.sql"), &[]);
    let rows = connection.query(&variables, &[])?.into_iter().map(columns);
    let rows: Vec<(String, String)> = rows.collect::<mysql::Result<_>>()?;
    let is = |name: &str, value: &str| rows.iter().any(|(n, v)| n == name && v == value);
    let has_binlog = is("log_bin", "ON");
    if has_binlog && is("binlog_format", "STATEMENT") {
        report.problem("binlog", "binlog_format is STATEMENT, with which READ COMMITTED cannot write (error 1665); set it in my.cnf too", "SET GLOBAL binlog_format = 'ROW'".to_owned());
    } else {
        report.good("binlog", if has_binlog { "row or mixed" } else { "off" });
    }
    let mut losses = Vec::new();
    if !is("innodb_flush_log_at_trx_commit", "1") {
        losses.push(("innodb_flush_log_at_trx_commit", "forget leases that were granted"));
    }
    if has_binlog && !is("sync_binlog", "1") {
        losses.push(("sync_binlog", "lose leases that were granted from replicas"));
    }
    if losses.is_empty() {
        report.good("durability", "every grant is on disk before it is answered");
    }
    for (variable, loss) in losses {
        let text =
            format!("{variable} is not 1, so a power failure can {loss}; set it in my.cnf too");
        report.warning("durability", text, format!("SET GLOBAL {variable} = 1"));
    }
    Ok(())
}

struct Column {
    name: String,
    data_type: String,
    width: u64,
    omittable: bool,
    nullable: bool,
    counts_up: bool,
    collation: String,
    max: u64,
}

impl Column {
    fn read(row: mysql::Row) -> mysql::Result<Self> {
        let (name, data_type, width, omittable, nullable, counts_up, collation, max) =
            columns(row)?;
        Ok(Self { name, data_type, width, omittable, nullable, counts_up, collation, max })
    }

    /// The statement that gives it a default. `None` for those whose default is a choice.
    fn make_omittable(&self, table: &str) -> Option<String> {
        let (name, data_type) = (&self.name, &self.data_type);
        match data_type.as_str() {
            "enum" | "set" => None,
            "char" | "varchar" | "binary" | "varbinary" => {
                Some(format!("ALTER TABLE {table} ALTER `{name}` SET DEFAULT ''"))
            }
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "float"
            | "double" => Some(format!("ALTER TABLE {table} ALTER `{name}` SET DEFAULT 0")),
            _ => Some(format!("ALTER TABLE {table} MODIFY `{name}` {data_type} NULL")),
        }
    }
}

fn found_columns(connection: &mut Connection, table: &str) -> mysql::Result<Vec<Column>> {
    let found = Statement::new(include_str!("../../sql/check/table_columns.sql"), &[]);
    let rows = connection.query(&found, &[("table", Value::Text(table))])?;
    rows.into_iter().map(Column::read).collect()
}

/// Name, columns in alphabetical order, and whether only the beginning of a column counts.
type UniqueKey = (String, String, bool);

/// The primary key comes first.
fn unique_keys(connection: &mut Connection, table: &str) -> mysql::Result<Vec<UniqueKey>> {
    let keys = Statement::new(include_str!("../../sql/check/table_unique_keys.sql"), &[]);
    let rows = connection.query(&keys, &[("table", Value::Text(table))])?;
    rows.into_iter().map(columns).collect()
}

/// The table's engine, columns and keys; `None` if they cannot be used at all.
fn inspect_shape(
    connection: &mut Connection,
    name: &str,
    report: &mut Report,
) -> mysql::Result<Option<Table>> {
    let by_name = [("table", Value::Text(name))];
    let stats_now = Statement::new(include_str!("../../sql/check/fresh_auto_increment.sql"), &[]);
    // Where that is refused, the counter is only shown late.
    let _ = connection.query(&stats_now, &[]);
    let Some((engine, next_id)) = status(connection, name)? else {
        report.problem("table", format!("there is no table {name}, or this user has no right on it: name the right one with SESSION_LOCK_TABLE, or create it with `session-lock migrate`"), None);
        return Ok(None);
    };
    if engine == "InnoDB" {
        report.good("table", format!("{name}, InnoDB"));
    } else {
        report.problem(
            "table",
            format!("{name} is {engine}, which has no transactions"),
            format!("ALTER TABLE {name} ENGINE = InnoDB"),
        );
    }

    let found_columns = found_columns(connection, name)?;
    inspect_columns(name, &found_columns, report);
    let keys = unique_keys(connection, name)?;
    let session_key = inspect_keys(name, &keys, report);

    let triggers = Statement::new(include_str!("../../sql/check/table_triggers.sql"), &[]);
    let triggers = connection.query(&triggers, &by_name)?;
    let has_triggers = !triggers.is_empty();
    for row in triggers {
        let (trigger,): (String,) = columns(row)?;
        report.warning(
            "triggers",
            format!(
                "{trigger} runs on every lease; if it changes what is written, nobody is granted"
            ),
            format!("DROP TRIGGER `{trigger}`"),
        );
    }

    let primary = keys.iter().find(|(name, ..)| name == "PRIMARY").map(|(_, column, _)| column);
    let primary = found_columns.iter().find(|c| Some(&c.name) == primary && c.counts_up);
    let Some(primary) = primary else {
        report.problem("primary key", format!("{name} has no AUTO_INCREMENT primary key of one column: is it the right table? Name it with SESSION_LOCK_TABLE"), None);
        return Ok(None);
    };
    report.good("primary key", primary.name.clone());
    let text = format!("{} of {} ids used", next_id.saturating_sub(1), primary.max);
    let reset = format!("ALTER TABLE {name} AUTO_INCREMENT = 1");
    let advice = "with none left old programs can insert nothing; mend it at a quiet moment, once no row has a high id";
    // Rounding is no matter here.
    #[allow(clippy::cast_precision_loss)]
    let ids_used = next_id.saturating_sub(1) as f64 / primary.max as f64;
    report.ids_used = Some(ids_used);
    // At half there are months left, at nine tenths perhaps days.
    match next_id.saturating_mul(10) / primary.max {
        0..=4 => report.good("id headroom", text),
        5..=8 => report.warning("id headroom", format!("over half: {text}; {advice}"), reset),
        _ => report.warning("id headroom", format!("NEARLY EXHAUSTED: {text}; {advice}"), reset),
    }
    let letter_case = |name: &str| {
        let mut columns = found_columns.iter();
        match columns.find(|column| column.name == name) {
            Some(column) if !column.collation.ends_with("_ci") => LetterCase::Distinguished,
            _ => LetterCase::Ignored,
        }
    };
    Ok(Some(Table {
        device_case: letter_case("id_device"),
        prospect_case: letter_case("id_prospect"),
        name: name.to_owned(),
        key: primary.name.clone(),
        session_key: session_key.unwrap_or_default(),
        max_key: primary.max,
        next_id,
        has_triggers,
    }))
}

fn inspect_columns(table: &str, found: &[Column], report: &mut Report) {
    let wrong_so_far = report.findings.len();
    for wanted in COLUMNS {
        let Some(column) = found.iter().find(|column| column.name == wanted) else {
            let has: Vec<_> = found.iter().map(|column| column.name.as_str()).collect();
            report.problem(
                "columns",
                format!(
                    "{table} has no column {wanted} (it has {}): is it the right table, and may this user SELECT from it? Name it with SESSION_LOCK_TABLE",
                    has.join(", ")
                ),
                None,
            );
            continue;
        };
        let (width, what) = match wanted {
            "timestamp" => (lease::STORED_CHARS, "a lease is a text of 62 characters"),
            _ => (lease::ID_MAX_CHARS, "ids have up to 255 characters"),
        };
        let is_text = matches!(
            column.data_type.as_str(),
            "varchar" | "text" | "mediumtext" | "longtext" | "tinytext"
        );
        // In these, a character has more than the byte that a lease's has.
        let is_wide =
            ["utf16", "utf32", "ucs2"].iter().any(|wide| column.collation.starts_with(wide));
        if !is_text || column.width < width as u64 || column.nullable || is_wide {
            let nullable = if column.nullable { " NULL" } else { "" };
            let collation = [" ", &column.collation].concat();
            let collation = collation.trim_end();
            report.problem(
                "columns",
                format!(
                    "{table}.{wanted} is {}({}){collation}{nullable}, but {what}, and never NULL",
                    column.data_type, column.width
                ),
                Some(format!(
                    "ALTER TABLE {table} MODIFY {wanted} VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL"
                )),
            );
        }
    }
    for column in found.iter().filter(|c| !c.omittable && !COLUMNS.contains(&c.name.as_str())) {
        report.problem(
            "columns",
            format!("{table}.{} has no default, so no lease can be written", column.name),
            column.make_omittable(table),
        );
    }
    if report.findings.len() == wrong_so_far {
        let text = "id_prospect, id_device and timestamp hold what they must";
        report.good("columns", text);
    }
    for column in
        found.iter().filter(|column| column.name.starts_with("id_") && !column.collation.is_empty())
    {
        let case = if column.collation.ends_with("_ci") {
            "does not distinguish"
        } else {
            "distinguishes"
        };
        report.good(
            "collation",
            format!("{}: {}, {case} letter case", column.name, column.collation),
        );
    }
}

/// The name of the one key that makes a session unique.
fn inspect_keys(table: &str, keys: &[UniqueKey], report: &mut Report) -> Option<String> {
    const SESSION: &str = "id_device,id_prospect";
    let mut session_key = None;
    for (name, columns, shortened) in keys.iter().filter(|(name, ..)| name != "PRIMARY") {
        if columns == SESSION && !shortened && session_key.is_none() {
            session_key = Some(name);
        } else {
            report.problem("unique key", format!("{table} has another unique key, {name} ({columns}), which would make one session's lease overwrite another's"), format!("ALTER TABLE {table} DROP INDEX `{name}`"));
        }
    }
    match session_key {
        Some(name) => report.good("unique key", format!("{name} (id_prospect, id_device)")),
        None => report.problem("unique key", format!("{table} has no unique key on (id_prospect, id_device), so two workers could hold one session"), format!("ALTER TABLE {table} ADD UNIQUE KEY (id_prospect, id_device)")),
    }
    session_key.cloned()
}

/// The statement that gives us all rights that we need on a table.
fn grant(connection: &mut Connection, table: &str) -> mysql::Result<String> {
    let user = Statement::new(include_str!("../../sql/check/database_and_user.sql"), &[]);
    let user = connection.query(&user, &[])?.pop().map(columns).transpose()?;
    let (database, user): (String, String) = user.unwrap_or_default();
    Ok(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.{table} TO {user}"))
}

/// Whether rows may be read; adds what may be done besides.
fn inspect_rights(
    connection: &mut Connection,
    table: &Table,
    report: &mut Report,
) -> mysql::Result<bool> {
    let names = table.names();
    let nobody = [
        ("id_prospect", Value::Text("")),
        ("id_device", Value::Text("")),
        ("after", Value::Number(0)),
        ("limit", Value::Number(1)),
    ];
    let tries = [
        ("SELECT", include_str!("../../sql/lease/list.sql")),
        ("INSERT, UPDATE", include_str!("../../sql/check/try_insert_update.sql")),
        ("DELETE", include_str!("../../sql/lease/may_write.sql")),
    ];
    let (mut denied, mut readable) = (Vec::new(), true);
    for (right, file) in tries {
        let Err(error) = connection.query(&Statement::new(file, &names), &nobody) else {
            continue;
        };
        match Trouble::of(&error) {
            Trouble::ReadOnly => report.writes = Writes::ReadOnly,
            // Of a shape that was found wrong already.
            Trouble::Refused if report.of(Verdict::Problem).next().is_some() => return Ok(false),
            Trouble::Denied | Trouble::Refused => {
                readable &= right != "SELECT";
                denied.push(cause(&error));
            }
            _ => return Err(error),
        }
    }
    if !denied.is_empty() {
        let text = format!("this user may not do all that it must ({})", denied.join("; "));
        let grant = grant(connection, &table.name)?;
        report.problem("rights", text, grant);
    } else if report.writes == Writes::Accepted {
        report.good("rights", "SELECT, INSERT, UPDATE, DELETE");
    }
    Ok(readable)
}

fn inspect_rows(
    connection: &mut Connection,
    table: &Table,
    report: &mut Report,
) -> mysql::Result<()> {
    let ahead =
        Statement::new(include_str!("../../sql/check/rows_ahead.sql"), &[("table", &table.name)]);
    let longest_s = (lease::TTL_MAX_MS - lease::HOLD_MS) / 1_000 + CLOCK_TOLERANCE_S;
    let values = [
        ("lease_chars", Value::Number(lease::STORED_CHARS as u64)),
        ("ahead_s", Value::Number(longest_s)),
        ("clock_s", Value::Number(CLOCK_TOLERANCE_S)),
    ];
    for row in connection.query(&ahead, &values)? {
        let (count, prospect, device): (u64, String, String) = columns(row)?;
        if count == 0 {
            report.good("rows", "none is dated ahead");
        } else {
            report.warning("rows", format!(
                    "{count} dated ahead of the database's clock, which hold their sessions until then (id_prospect={prospect:?} \
                     id_device={device:?} for one): a program on this table writes another time zone; a forced release frees one"
                ), None);
        }
    }
    Ok(())
}

/// Whether answered messages can be recorded. Leases work without.
pub fn inspect_messages(connection: &mut Connection, table: &Table) -> mysql::Result<Messages> {
    let wrong = wrong_with_messages(connection, table)?;
    Ok(wrong.map_or(Messages::Kept, |wrong| {
        Messages::Refused(format!("answered messages cannot be recorded: {wrong}"))
    }))
}

/// What is wrong with the table of messages, and what to do.
fn wrong_with_messages(
    connection: &mut Connection,
    table: &Table,
) -> mysql::Result<Option<String>> {
    const KEY: &str = "id_device,id_prospect,message_id";
    let Some((engine, _)) = status(connection, MESSAGE_TABLE)? else {
        return Ok(Some(format!(
            "there is no table {MESSAGE_TABLE}, or this user has no right on it: run `session-lock migrate`"
        )));
    };
    let lock_columns = found_columns(connection, &table.name)?;
    let found = found_columns(connection, MESSAGE_TABLE)?;
    let compares_alike = ["id_prospect", "id_device"].iter().all(|name| {
        let collation = |columns: &[Column]| {
            let mut columns = columns.iter().filter(|column| column.name == *name);
            columns.next().map(|column| column.collation.clone())
        };
        collation(&found) == collation(&lock_columns)
    });
    let keys = unique_keys(connection, MESSAGE_TABLE)?;
    let is_unique = matches!(&keys[..], [(_, columns, false)] if columns == KEY);
    let is_wide = |name: &str, data_type: &str, width: usize| {
        let mut columns = found.iter().filter(|column| column.name == name);
        columns.any(|column| column.data_type == data_type && column.width >= width as u64)
    };
    let holds_all = is_wide("message_id", "varbinary", lease::MESSAGE_ID_MAX_CHARS)
        && is_wide("owner_token", "varbinary", lease::OWNER_TOKEN_DIGITS)
        && is_wide("committed_us", "bigint", 0)
        && is_wide("result", "varbinary", lease::RESULT_MAX_BYTES);
    if engine != "InnoDB" || !compares_alike || !is_unique || !holds_all {
        return Ok(Some(format!(
            "{MESSAGE_TABLE} is not as `session-lock migrate` creates it for {0} (InnoDB, its columns, \
             its ids compared as in {0}, one unique key: {KEY}): rename it, and run `session-lock migrate`",
            table.name
        )));
    }
    let names = table.names();
    let nobody = [
        ("id_prospect", Value::Text("")),
        ("id_device", Value::Text("")),
        ("message_id", Value::Bytes(b"")),
        ("owner_token", Value::Bytes(b"")),
        ("committed_us", Value::Number(0)),
        ("result", Value::Null),
    ];
    for file in [
        include_str!("../../sql/message/read.sql"),
        include_str!("../../sql/message/commit.sql"),
        include_str!("../../sql/message/forget.sql"),
    ] {
        let Err(error) = connection.query(&Statement::new(file, &names), &nobody) else {
            continue;
        };
        match Trouble::of(&error) {
            // That is said of the lock table, in its place.
            Trouble::ReadOnly => {}
            Trouble::Denied => {
                return Ok(Some(format!(
                    "this user may not do all that it must ({}): {}",
                    cause(&error),
                    grant(connection, MESSAGE_TABLE)?
                )));
            }
            Trouble::Refused => return Ok(Some(cause(&error))),
            _ => return Err(error),
        }
    }
    Ok(None)
}
