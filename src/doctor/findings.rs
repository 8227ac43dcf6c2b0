//! What the facts mean: one function per finding, without input or output. The findings about the
//! lock table are in `shape` and `keys`. Each text is on one line, so that a search finds it.

use super::Verdict::{Good, Problem, Warning};
use super::engines;
use super::facts::{CLOCK_TOLERANCE_S, Column, Facts, Rows, TableFacts};
use super::keys::{headroom, primary, references, triggers, unique_keys};
use super::rights::Rights;
use super::shape::{collations, columns, constraints, kind, other_columns};
use super::{Finding, Messages, Writes, found};
use crate::db::{
    HANGING_WRITES, MESSAGE_TABLE, PACKET_LEAST_BYTES, PACKET_MAX_BYTES, SYSDATE_IS_NOW, Table,
};
use crate::lease;

/// Server time zones that are UTC. `GMT` is not among them: it is also the name of British winter
/// time, whose offset changes in summer.
const UTC_NAMES: [&str; 3] = ["UTC", "Etc/UTC", "+00:00"];

/// The columns of the message table besides the ids: name, type and least width.
const MESSAGE_COLUMNS: [(&str, &str, usize); 4] = [
    ("message_id", "varbinary", lease::MESSAGE_ID_MAX_CHARS),
    ("owner_token", "varbinary", lease::OWNER_TOKEN_DIGITS),
    ("committed_us", "bigint", 0),
    ("result", "varbinary", lease::RESULT_MAX_BYTES),
];

/// The columns of the message table's only unique key, in alphabetical order.
const MESSAGE_KEY: &str = "id_device,id_prospect,message_id";

/// The topic of the only problem that may end without a change to the server or the table.
const WRITES: &str = "writes";

/// The topic of the only problem that does not stop a running service: the service knows how the
/// rows of old programs were dated before.
pub const TIME_ZONE: &str = "time zone";

type Check = fn(&Facts) -> Vec<Finding>;

/// In the order in which findings are printed.
const CHECKS: [Check; 25] = [
    server,
    proxy,
    engines::group,
    engines::lock_waits,
    sysdate,
    time_zone,
    clock,
    binlog,
    durability,
    packets,
    kind,
    constraints,
    columns,
    collations,
    primary,
    other_columns,
    unique_keys,
    triggers,
    references,
    headroom,
    rights,
    rows_ahead,
    rows_refused,
    messages,
    writes,
];

pub fn all(facts: &Facts) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(facts)).collect()
}

/// Whether leases hold in this table when the server accepts writes.
pub fn is_usable(findings: &[Finding]) -> bool {
    let is_elsewhere = |finding: &Finding| [WRITES, TIME_ZONE].contains(&finding.topic);
    findings.iter().all(|finding| finding.verdict != Problem || is_elsewhere(finding))
}

fn server(facts: &Facts) -> Vec<Finding> {
    found(Good, "server", &format!("reachable, version {}", facts.version), None)
}

fn proxy(facts: &Facts) -> Vec<Finding> {
    if !facts.is_proxied {
        return vec![];
    }
    let text = "CONNECTION_ID() is not the number of the handshake, so a proxy has its own connections to the server (ProxySQL, MaxScale, RDS Proxy, MySQL Router with connection sharing): a write whose answer is lost cannot be ended with KILL, so session-lock waits 3 s for it, and a write that the proxy still holds may take effect later; point DATABASE_URL at the server, or at a proxy that passes connections through (HAProxy in TCP mode)";
    found(Warning, "proxy", text, None)
}

fn sysdate(facts: &Facts) -> Vec<Finding> {
    if facts.is_sysdate_now { found(Problem, "clock", SYSDATE_IS_NOW, None) } else { vec![] }
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
                "{configured} is configured, but the database's own zone {zone} is at {offset} now: old programs that write NOW() disagree with our leases; if there are such programs, set SESSION_LOCK_TIME_ZONE={offset} in all servers alike, after all of them have stopped and their leases have expired"
            ),
        ),
        None if UTC_NAMES.contains(&zone.as_str()) => (Good, "UTC".to_owned()),
        None => (
            Problem,
            format!(
                "the database's own zone is {zone} (now {offset}), and old programs write its local time: set SESSION_LOCK_TIME_ZONE={offset}, or SET GLOBAL time_zone = '+00:00' if this affects no other program"
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
        return found(Good, "durability", "every new lease is on disk before it is granted", None);
    }
    all
}

fn packets(facts: &Facts) -> Vec<Finding> {
    let allowed = facts.variables.iter().find(|(name, _)| name == "max_allowed_packet");
    let Some(bytes) = allowed.and_then(|(_, bytes)| bytes.parse::<usize>().ok()) else {
        return vec![];
    };
    if bytes >= PACKET_MAX_BYTES {
        return vec![];
    }
    let (verdict, result) = if bytes < PACKET_LEAST_BYTES {
        (Problem, "the service cannot start")
    } else {
        (Warning, "many requests with long ids at once can get 503")
    };
    let text = format!("max_allowed_packet is {bytes} bytes, so {result}; set it in my.cnf too");
    let sql = format!("SET GLOBAL max_allowed_packet = {}", 16 * PACKET_MAX_BYTES);
    found(verdict, "packets", &text, Some(sql))
}

fn rights(facts: &Facts) -> Vec<Finding> {
    let Some(rights) = &facts.rights else { return vec![] };
    let mut all = Vec::new();
    if !rights.denied.is_empty() {
        let text = format!("this user lacks rights ({})", rights.denied.join("; "));
        all.extend(found(Problem, "rights", &text, Some(rights.grant.clone())));
    }
    if let Some(cause) = &rights.refused {
        let text = format!("the database refuses the statements of leases: {cause}");
        all.extend(found(Problem, "leases", &text, None));
    }
    if all.is_empty() && rights.is_readable && rights.writes == Writes::Accepted {
        return found(Good, "rights", "SELECT, INSERT, UPDATE, DELETE", None);
    }
    all
}

/// How many rows, and one of them.
fn counted(rows: &Rows) -> (String, String) {
    let Rows { count, is_least, prospect, device } = rows;
    let least = if *is_least { "at least " } else { "" };
    let example = format!("(id_prospect={prospect:?} id_device={device:?} for one)");
    (format!("{least}{count}"), example)
}

fn rows_ahead(facts: &Facts) -> Vec<Finding> {
    let Some(rows) = &facts.rows_ahead else { return vec![] };
    if rows.count == 0 {
        return found(Good, "rows", "none is dated ahead", None);
    }
    let (count, example) = counted(rows);
    let text = format!(
        "{count} dated ahead of the database's clock, which hold their sessions until then {example}: a program on this table writes another time zone; a forced release frees a session"
    );
    found(Warning, "rows", &text, None)
}

fn rows_refused(facts: &Facts) -> Vec<Finding> {
    let Some(rows) = facts.rows_refused.as_ref().filter(|rows| rows.count > 0) else {
        return vec![];
    };
    let (count, example) = counted(rows);
    let text = format!(
        "{count} have ids that session-lock refuses {example}: an id has 1-255 characters, no control characters and no blank at either end; change these ids before the bot moves to session-lock"
    );
    found(Warning, "row ids", &text, None)
}

fn messages(facts: &Facts) -> Vec<Finding> {
    match &facts.messages {
        Messages::Unknown => vec![],
        Messages::Usable => found(Good, "messages", MESSAGE_TABLE, None),
        Messages::Refused(why) => {
            let text = format!("{why}; until then, requests with a message_id are refused");
            found(Warning, "messages", &text, None)
        }
    }
}

fn writes(facts: &Facts) -> Vec<Finding> {
    let text = match facts.writes() {
        Writes::Accepted => return vec![],
        Writes::ReadOnly => "the server is read-only: point DATABASE_URL at the primary, or wait for the failover to end; on the primary itself, read_only or transaction_read_only (tx_read_only) is on".to_owned(),
        Writes::Hang => format!("a write did not end within seconds: {HANGING_WRITES}"),
    };
    found(Problem, WRITES, &text, None)
}

/// What is wrong with the shape of the message table, and the remedy.
pub fn wrong_message_table(found: Option<&TableFacts>, lock_table: &Table) -> Option<String> {
    let Some(found) = found else {
        return Some(format!(
            "there is no table {MESSAGE_TABLE}, or this user has no right on it: run `session-lock migrate`"
        ));
    };
    let ids = [
        ("id_prospect", &lock_table.prospect_collation),
        ("id_device", &lock_table.device_collation),
    ];
    let holds_ids = ids.iter().all(|(id, collation)| {
        let column = found.column(id);
        column.is_some_and(|c| c.width >= lease::ID_MAX_CHARS as u64 && c.collation == **collation)
    });
    let is_unique =
        matches!(&found.unique_keys[..], [key] if key.columns == MESSAGE_KEY && !key.is_prefix);
    let holds_all = MESSAGE_COLUMNS.iter().all(|(name, data_type, width)| {
        let column = found.column(name);
        column.is_some_and(|c| c.data_type == *data_type && c.width >= *width as u64)
    });
    let is_ours = |column: &&Column| {
        let others = MESSAGE_COLUMNS.iter().map(|(name, ..)| *name);
        let mut ours = ids.iter().map(|(id, _)| *id).chain(others);
        ours.any(|name| column.name.to_lowercase() == name)
    };
    let mut others = found.columns.iter().filter(|column| !is_ours(column));
    let takes_records = others.all(|column| column.omittable)
        && found.column("result").is_some_and(|result| result.nullable);
    // If this user may not see the definition, this is unknown.
    let definition = &found.definition;
    let finds_old =
        definition.column("committed_us").is_none() || definition.has_key_from("committed_us");
    let is_wrong = found.engine != "InnoDB"
        || !holds_ids
        || !finds_old
        || !takes_records
        || !is_unique
        || !holds_all;
    let lock_table = &lock_table.name;
    is_wrong.then(|| format!(
        "{MESSAGE_TABLE} is not as `session-lock migrate` creates it for {lock_table} (InnoDB, its columns, its ids compared as in {lock_table}, one unique key: {MESSAGE_KEY}, and a key on committed_us): rename it, and run `session-lock migrate`"
    ))
}

/// Why this user cannot use the message table, and the remedy.
pub fn wrong_message_rights(rights: &Rights) -> Option<String> {
    let denied = rights.denied.first();
    let denied = denied.map(|cause| format!("this user lacks rights ({cause}): {}", rights.grant));
    denied.or_else(|| rights.refused.clone())
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
