//! What the facts mean: one function per finding, without input or output. Texts stand on one line,
//! however long, so that a search finds them.

use super::Verdict::{self, Good, Problem, Warning};
use super::engines;
use super::facts::{CLOCK_TOLERANCE_S, Column, Facts, TableFacts};
use super::rights::Rights;
use super::{Finding, Messages, Writes};
use crate::db::MESSAGE_TABLE;
use crate::db::{ErrorKind, HANGING_WRITES, SYSDATE_IS_NOW, Sysdate};
use crate::lease;

/// Server time zones that are UTC. `GMT` is not among them: it is also the winter name of
/// Britain's zone, which changes in summer.
const UTC_NAMES: [&str; 3] = ["UTC", "Etc/UTC", "+00:00"];

/// The columns that leases are written to: name, least width in characters, and the reason.
const COLUMNS: [(&str, usize, &str); 3] = [
    ("id_prospect", lease::ID_MAX_CHARS, "ids have up to 255 characters"),
    ("id_device", lease::ID_MAX_CHARS, "ids have up to 255 characters"),
    ("timestamp", lease::STORED_CHARS, "a lease is a text of 62 characters"),
];

const TEXT_TYPES: [&str; 5] = ["varchar", "text", "mediumtext", "longtext", "tinytext"];

/// Character sets in which a character of a lease takes more than one byte.
const WIDE_CHARACTER_SETS: [&str; 3] = ["utf16", "utf32", "ucs2"];

/// The columns of the message table besides the ids: name, type and least width.
const MESSAGE_COLUMNS: [(&str, &str, usize); 4] = [
    ("message_id", "varbinary", lease::MESSAGE_ID_MAX_CHARS),
    ("owner_token", "varbinary", lease::OWNER_TOKEN_DIGITS),
    ("committed_us", "bigint", 0),
    ("result", "varbinary", lease::RESULT_MAX_BYTES),
];

/// The columns of the message table's only unique key, in alphabetical order.
const MESSAGE_KEY: &str = "id_device,id_prospect,message_id";

/// The topic of the one problem that passes without a change to the server or the table.
const WRITES: &str = "writes";

/// The topic of the one problem that does not stop a service which is running: it knows how old
/// programs' rows were dated before.
pub const TIME_ZONE: &str = "time zone";

type Check = fn(&Facts) -> Vec<Finding>;

/// In the order in which findings are printed.
const CHECKS: [Check; 20] = [
    server,
    proxy,
    engines::group,
    engines::lock_waits,
    sysdate,
    time_zone,
    clock,
    binlog,
    durability,
    engine,
    columns,
    collations,
    keys,
    triggers,
    primary,
    headroom,
    rights,
    rows_ahead,
    messages,
    writes,
];

pub fn all(facts: &Facts) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(facts)).collect()
}

/// Whether leases hold in this table, as soon as the server accepts writes.
pub fn is_usable(findings: &[Finding]) -> bool {
    let is_elsewhere = |finding: &Finding| [WRITES, TIME_ZONE].contains(&finding.topic);
    findings.iter().all(|finding| finding.verdict != Problem || is_elsewhere(finding))
}

fn found(verdict: Verdict, topic: &'static str, text: &str, sql: Option<String>) -> Vec<Finding> {
    vec![Finding { verdict, topic, text: text.to_owned(), sql }]
}

fn server(facts: &Facts) -> Vec<Finding> {
    found(Good, "server", &format!("reachable, version {}", facts.version), None)
}

fn proxy(facts: &Facts) -> Vec<Finding> {
    if !facts.is_proxied {
        return vec![];
    }
    let text = "CONNECTION_ID() is not the number of the handshake, so a proxy is in between that has connections of its own to the server (ProxySQL, MaxScale, RDS Proxy, MySQL Router with connection sharing): a write whose answer is lost cannot be ended with KILL there and is waited out, 3 s, and one that the proxy still holds may take effect later; better point DATABASE_URL at the server, or at a proxy that passes connections through (HAProxy in TCP mode)";
    found(Warning, "proxy", text, None)
}

fn sysdate(facts: &Facts) -> Vec<Finding> {
    match facts.sysdate {
        Sysdate::AtTheCall => vec![],
        Sysdate::AtTheStart => found(Problem, "clock", SYSDATE_IS_NOW, None),
    }
}

fn time_zone(facts: &Facts) -> Vec<Finding> {
    let (zone, minutes) = (&facts.zone, facts.offset_minutes);
    let sign = if minutes < 0 { '-' } else { '+' };
    let offset = format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
    let (verdict, text) = match facts.configured_offset {
        Some(configured) if configured == offset => {
            (Good, format!("{configured}, as configured; the database's own is {zone}"))
        }
        Some(configured) => (
            Warning,
            format!(
                "{configured} is configured, but the database's own zone {zone} is at {offset} now: old programs that write NOW() disagree with our leases; set SESSION_LOCK_TIME_ZONE={offset} if there are any, in all servers alike"
            ),
        ),
        None if UTC_NAMES.contains(&zone.as_str()) => (Good, "UTC".to_owned()),
        None => (
            Problem,
            format!(
                "the database's own zone is {zone} (now {offset}), and old programs write its local time: set SESSION_LOCK_TIME_ZONE={offset}, or SET GLOBAL time_zone = '+00:00' if no other program minds"
            ),
        ),
    };
    found(verdict, TIME_ZONE, &text, None)
}

fn clock(facts: &Facts) -> Vec<Finding> {
    let apart_s = (facts.local_clock_us / 1_000_000).abs_diff(facts.clock_us / 1_000_000);
    if apart_s <= CLOCK_TOLERANCE_S {
        return found(Good, "clock", "the database's clock agrees with this machine's", None);
    }
    let text = format!(
        "the database's clock and this machine's are {apart_s} s apart; only the database's counts, but check NTP on both"
    );
    found(Warning, "clock", &text, None)
}

fn binlog(facts: &Facts) -> Vec<Finding> {
    let has_binlog = facts.has("log_bin", "ON");
    if has_binlog && facts.has("binlog_format", "STATEMENT") {
        let text = "binlog_format is STATEMENT, with which READ COMMITTED cannot write (error 1665); set it in my.cnf too";
        return found(Problem, "binlog", text, Some("SET GLOBAL binlog_format = 'ROW'".to_owned()));
    }
    found(Good, "binlog", if has_binlog { "row or mixed" } else { "off" }, None)
}

fn durability(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    for (variable, applies, loss) in [
        ("innodb_flush_log_at_trx_commit", true, "forget leases that were granted"),
        ("sync_binlog", facts.has("log_bin", "ON"), "lose leases that were granted from replicas"),
    ] {
        if applies && !facts.has(variable, "1") {
            let text =
                format!("{variable} is not 1, so a power failure can {loss}; set it in my.cnf too");
            let sql = format!("SET GLOBAL {variable} = 1");
            all.extend(found(Warning, "durability", &text, Some(sql)));
        }
    }
    if all.is_empty() {
        return found(Good, "durability", "every grant is on disk before it is answered", None);
    }
    all
}

fn engine(facts: &Facts) -> Vec<Finding> {
    let name = facts.table_name;
    let Some(TableFacts { engine, .. }) = &facts.table else {
        let text = format!(
            "there is no table {name}, or this user has no right on it: name the right one with SESSION_LOCK_TABLE, or create it with `session-lock migrate`"
        );
        return found(Problem, "table", &text, None);
    };
    if engine == "InnoDB" {
        return found(Good, "table", &format!("{name}, InnoDB"), None);
    }
    let text = format!("{name} is {engine}, which has no transactions");
    found(Problem, "table", &text, Some(format!("ALTER TABLE {name} ENGINE = InnoDB")))
}

fn columns(facts: &Facts) -> Vec<Finding> {
    let Some(table) = &facts.table else { return vec![] };
    let name = facts.table_name;
    let mut all = Vec::new();
    for (wanted, width, what) in COLUMNS {
        if let Some(column) = table.column(wanted) {
            all.extend(wrong_column(name, column, width, what));
            continue;
        }
        let has: Vec<_> = table.columns.iter().map(|column| &*column.name).collect();
        let has = has.join(", ");
        let text = format!(
            "{name} has no column {wanted} (it has {has}): is it the right table, and may this user SELECT from it? Name it with SESSION_LOCK_TABLE"
        );
        all.extend(found(Problem, "columns", &text, None));
    }
    let is_ours = |column: &Column| COLUMNS.iter().any(|(name, ..)| column.name == *name);
    for column in table.columns.iter().filter(|column| !column.omittable && !is_ours(column)) {
        let text = format!("{name}.{} has no default, so no lease can be written", column.name);
        all.extend(found(Problem, "columns", &text, make_omittable(name, column)));
    }
    if all.is_empty() {
        let text = "id_prospect, id_device and timestamp hold what they must";
        return found(Good, "columns", text, None);
    }
    all
}

/// The problem with a column that cannot hold every text of `min` characters.
fn wrong_column(table: &str, column: &Column, min: usize, what: &str) -> Vec<Finding> {
    let Column { name, data_type, width, nullable, collation, .. } = column;
    let is_text = TEXT_TYPES.contains(&data_type.as_str());
    let is_wide = WIDE_CHARACTER_SETS.iter().any(|wide| collation.starts_with(wide));
    if is_text && *width >= min as u64 && !nullable && !is_wide {
        return vec![];
    }
    let space = if collation.is_empty() { "" } else { " " };
    let null = if *nullable { " NULL" } else { "" };
    let text = format!(
        "{table}.{name} is {data_type}({width}){space}{collation}{null}, but {what}, and never NULL"
    );
    let sql =
        format!("ALTER TABLE {table} MODIFY {name} VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL");
    found(Problem, "columns", &text, Some(sql))
}

/// The statement that gives a column a default. `None` if somebody must choose the default.
fn make_omittable(table: &str, column: &Column) -> Option<String> {
    let Column { name, data_type, .. } = column;
    let change = match data_type.as_str() {
        "enum" | "set" => return None,
        "char" | "varchar" | "binary" | "varbinary" => format!("ALTER `{name}` SET DEFAULT ''"),
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "float"
        | "double" => format!("ALTER `{name}` SET DEFAULT 0"),
        _ => format!("MODIFY `{name}` {data_type} NULL"),
    };
    Some(format!("ALTER TABLE {table} {change}"))
}

fn collations(facts: &Facts) -> Vec<Finding> {
    let columns = facts.table.iter().flat_map(|table| &table.columns);
    let ids = columns.filter(|c| c.name.starts_with("id_") && !c.collation.is_empty());
    ids.flat_map(|column| {
        let is_case_sensitive = !column.collation.ends_with("_ci");
        let does = if is_case_sensitive { "distinguishes" } else { "does not distinguish" };
        let text = format!("{}: {}, {does} letter case", column.name, column.collation);
        found(Good, "collation", &text, None)
    })
    .collect()
}

fn keys(facts: &Facts) -> Vec<Finding> {
    let Some(table) = &facts.table else { return vec![] };
    let name = facts.table_name;
    let session_key = table.session_key().map(|key| &key.name);
    let mut all = Vec::new();
    for other in table.other_keys().filter(|key| Some(&key.name) != session_key) {
        let (key, columns) = (&other.name, &other.columns);
        let text = format!(
            "{name} has another unique key, {key} ({columns}), which would make one session's lease overwrite another's"
        );
        let sql = format!("ALTER TABLE {name} DROP INDEX `{key}`");
        all.extend(found(Problem, "unique key", &text, Some(sql)));
    }
    all.extend(if let Some(key) = session_key {
        found(Good, "unique key", &format!("{key} (id_prospect, id_device)"), None)
    } else {
        let text = format!(
            "{name} has no unique key on (id_prospect, id_device), so two workers could hold one session"
        );
        let sql = format!("ALTER TABLE {name} ADD UNIQUE KEY (id_prospect, id_device)");
        found(Problem, "unique key", &text, Some(sql))
    });
    all
}

fn triggers(facts: &Facts) -> Vec<Finding> {
    let triggers = facts.table.iter().flat_map(|table| &table.triggers);
    let warning = |trigger| {
        let text = format!(
            "{trigger} runs on every lease; if it changes what is written, nobody is granted"
        );
        found(Warning, "triggers", &text, Some(format!("DROP TRIGGER `{trigger}`")))
    };
    triggers.flat_map(warning).collect()
}

fn primary(facts: &Facts) -> Vec<Finding> {
    let Some(table) = &facts.table else { return vec![] };
    if let Some(primary) = table.primary() {
        return found(Good, "primary key", &primary.name, None);
    }
    let text = format!(
        "{} has no AUTO_INCREMENT primary key of one column: is it the right table? Name it with SESSION_LOCK_TABLE",
        facts.table_name
    );
    found(Problem, "primary key", &text, None)
}

fn headroom(facts: &Facts) -> Vec<Finding> {
    let Some(table) = facts.lock_table() else { return vec![] };
    let used = format!("{} of {} ids used", table.next_id.saturating_sub(1), table.max_key);
    // At half, months are left; at nine tenths, perhaps days.
    let urgency = match table.next_id.saturating_mul(10) / table.max_key {
        0..=4 => return found(Good, "id headroom", &used, None),
        5..=8 => "over half",
        _ => "NEARLY EXHAUSTED",
    };
    let text = format!(
        "{urgency}: {used}; with none left old programs can insert nothing; mend it at a quiet moment, once no row has a high id"
    );
    let sql = format!("ALTER TABLE {} AUTO_INCREMENT = 1", table.name);
    found(Warning, "id headroom", &text, Some(sql))
}

fn rights(facts: &Facts) -> Vec<Finding> {
    match &facts.rights {
        Some(Rights { denied, grant, .. }) if !denied.is_empty() => {
            let denied: Vec<_> = denied.iter().map(|(_, cause)| cause.as_str()).collect();
            let text = format!("this user may not do all that it must ({})", denied.join("; "));
            found(Problem, "rights", &text, Some(grant.clone()))
        }
        Some(Rights { is_readable: true, writes: Writes::Accepted, .. }) => {
            found(Good, "rights", "SELECT, INSERT, UPDATE, DELETE", None)
        }
        _ => vec![],
    }
}

fn rows_ahead(facts: &Facts) -> Vec<Finding> {
    let Some((count, prospect, device)) = &facts.rows_ahead else { return vec![] };
    if *count == 0 {
        return found(Good, "rows", "none is dated ahead", None);
    }
    let text = format!(
        "{count} dated ahead of the database's clock, which hold their sessions until then (id_prospect={prospect:?} id_device={device:?} for one): a program on this table writes another time zone; a forced release frees one"
    );
    found(Warning, "rows", &text, None)
}

fn messages(facts: &Facts) -> Vec<Finding> {
    match &facts.messages {
        Messages::Unknown => vec![],
        Messages::Kept => found(Good, "messages", MESSAGE_TABLE, None),
        Messages::Refused(why) => {
            let text = format!("{why}; until then, requests with a message_id are refused");
            found(Warning, "messages", &text, None)
        }
    }
}

fn writes(facts: &Facts) -> Vec<Finding> {
    let text = match facts.writes() {
        Writes::Accepted => return vec![],
        Writes::ReadOnly => "the server is read-only: point DATABASE_URL at the primary, or wait for the failover to end".to_owned(),
        Writes::Hang => format!("a write did not end within seconds: {HANGING_WRITES}"),
    };
    found(Problem, WRITES, &text, None)
}

/// What is wrong with the shape of the message table, and what to do. `lock_table` is the name of
/// the lock table, `lock` its shape.
pub fn wrong_message_table(
    found: Option<&TableFacts>,
    lock_table: &str,
    lock: &TableFacts,
) -> Option<String> {
    let Some(found) = found else {
        return Some(format!(
            "there is no table {MESSAGE_TABLE}, or this user has no right on it: run `session-lock migrate`"
        ));
    };
    let collation = |table: &TableFacts, id| table.column(id).map(|id| id.collation.clone());
    let mut ids = ["id_prospect", "id_device"].into_iter();
    let compares_alike = ids.all(|id| collation(found, id) == collation(lock, id));
    let is_unique =
        matches!(&found.unique_keys[..], [key] if key.columns == MESSAGE_KEY && !key.is_prefix);
    let holds_all = MESSAGE_COLUMNS.iter().all(|(name, data_type, width)| {
        let column = found.column(name);
        column.is_some_and(|c| c.data_type == *data_type && c.width >= *width as u64)
    });
    let is_wrong = found.engine != "InnoDB" || !compares_alike || !is_unique || !holds_all;
    is_wrong.then(|| format!(
        "{MESSAGE_TABLE} is not as `session-lock migrate` creates it for {lock_table} (InnoDB, its columns, its ids compared as in {lock_table}, one unique key: {MESSAGE_KEY}): rename it, and run `session-lock migrate`"
    ))
}

/// Why this user cannot use the message table, and what to do.
pub fn wrong_message_rights(rights: &Rights) -> Option<String> {
    rights.denied.first().map(|(kind, cause)| match kind {
        ErrorKind::Denied => {
            format!("this user may not do all that it must ({cause}): {}", rights.grant)
        }
        _ => cause.clone(),
    })
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
