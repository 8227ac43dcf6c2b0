//! What the shape of the lock table means: kind, columns, constraints. Each text is on one line, so
//! that a search finds it.
//!
//! The SQL of the findings works in the order in which they are printed: first the changes that all
//! others need, then the columns, then the keys on them.

use super::Finding;
use super::Verdict::{Good, Problem, Warning};
use super::definition::{Constraint, names};
use super::facts::{Column, Facts, TableFacts};
use super::found;
use crate::db::quoted;
use crate::lease;

/// The columns that leases are written to: name, least width in characters, and the reason.
const COLUMNS: [(&str, usize, &str); 3] = [
    ("id_prospect", lease::ID_MAX_CHARS, ID_REASON),
    ("id_device", lease::ID_MAX_CHARS, ID_REASON),
    ("timestamp", lease::STORED_CHARS, "a lease is a text of 62 characters of one byte"),
];

const ID_REASON: &str = "ids have up to 255 characters, all of them in one unique key";

/// Text types whose whole value can be in a unique key.
const KEY_TYPES: [&str; 2] = ["varchar", "char"];

const TEXT_TYPES: [&str; 6] = ["varchar", "char", "text", "mediumtext", "longtext", "tinytext"];

/// Character sets in which an ASCII character takes more than one byte.
const WIDE_CHARACTER_SETS: [&str; 3] = ["utf16", "utf32", "ucs2"];

/// The collation of a lease that replaces these.
pub const LEASE_COLLATION: &str = "utf8mb4_bin";

/// A table of which this user sees the name only.
pub const NO_COLUMNS: &str =
    "this user may read no column of it: GRANT it SELECT, INSERT, UPDATE and DELETE on it";

/// The longest key of InnoDB, in bytes, and the longest part of a key in the older row formats.
const KEY_MAX_BYTES: u64 = 3_072;
const OLD_KEY_PART_MAX_BYTES: u64 = 767;

const OLD_ROW_FORMATS: [&str; 2] = ["Compact", "Redundant"];

/// The table, if it has the columns of a lease and its keys can be repaired. Any other table gets
/// only the finding that says so.
pub fn repairable_table<'a>(facts: &'a Facts) -> Option<&'a TableFacts> {
    let table = facts.table.as_ref().filter(|table| is_repairable(table))?;
    COLUMNS.iter().all(|(name, ..)| table.column(name).is_some()).then_some(table)
}

fn is_table(table: &TableFacts) -> bool {
    ["BASE TABLE", "SYSTEM VERSIONED"].contains(&table.kind.as_str())
}

/// The column that counts up within each value of another column, which only old engines support.
fn counting_in_groups(table: &TableFacts) -> Option<&Column> {
    let is_known = table.definition.column("id_device").is_some();
    let counting = table.counting().filter(|column| column.counts_up && is_known)?;
    (!table.definition.has_key_from(&counting.name)).then_some(counting)
}

fn is_repairable(table: &TableFacts) -> bool {
    is_table(table) && counting_in_groups(table).is_none()
}

/// A statement that changes the lock table.
pub fn alter(facts: &Facts, change: &str) -> String {
    format!("ALTER TABLE {} {change}", quoted(facts.table_name))
}

pub fn kind(facts: &Facts) -> Vec<Finding> {
    let name = facts.table_name;
    let Some(table) = &facts.table else {
        let text = format!(
            "there is no table {name}, or this user has no right on it: name the right one with SESSION_LOCK_TABLE, or create it with `session-lock migrate`"
        );
        return found(Problem, "table", &text, None);
    };
    if !is_table(table) {
        let kind = table.kind.to_lowercase();
        let text = format!(
            "{name} is a {kind}, which has no keys: name its table with SESSION_LOCK_TABLE"
        );
        return found(Problem, "table", &text, None);
    }
    let mut all = versions(facts, table);
    if is_partitioned(table) && !is_partitioned_by_time(table) {
        let text = format!(
            "{name} is partitioned, so every unique key must contain the columns of the partitions: the table cannot have both keys that leases need"
        );
        all.extend(found(Problem, "table", &text, Some(alter(facts, "REMOVE PARTITIONING"))));
    }
    all.extend(engine(facts, table));
    all
}

fn engine(facts: &Facts, table: &TableFacts) -> Vec<Finding> {
    let (name, engine) = (facts.table_name, &table.engine);
    match engine.as_str() {
        "InnoDB" => found(Good, "table", &format!("{name}, InnoDB"), None),
        "" => {
            let text = format!("the server cannot open {name}; CHECK TABLE {name} says why");
            found(Problem, "table", &text, None)
        }
        _ => {
            if let Some(Column { name: column, .. }) = counting_in_groups(table) {
                let text = format!(
                    "{name} is {engine}, and its {column} counts up within a group of rows, which InnoDB cannot do: is it the right table? Name it with SESSION_LOCK_TABLE"
                );
                return found(Problem, "table", &text, None);
            }
            let text = format!("{name} is {engine}, which has no transactions");
            // Each engine has row formats and block sizes that the others refuse.
            let block_size = table.options.to_uppercase().contains("KEY_BLOCK_SIZE");
            let block_size = if block_size { ", KEY_BLOCK_SIZE = 0" } else { "" };
            let change = format!("ENGINE = InnoDB, ROW_FORMAT = DYNAMIC{block_size}");
            found(Problem, "table", &text, Some(alter(facts, &change)))
        }
    }
}

fn is_partitioned(table: &TableFacts) -> bool {
    table.options.to_lowercase().contains("partitioned")
}

/// Whether only the old versions of rows are partitioned, which needs no columns in the keys.
fn is_partitioned_by_time(table: &TableFacts) -> bool {
    table.definition.says(&["PARTITION", "BY", "SYSTEM_TIME"])
}

fn versions(facts: &Facts, table: &TableFacts) -> Vec<Finding> {
    if table.kind != "SYSTEM VERSIONED" {
        return vec![];
    }
    let name = facts.table_name;
    let text = format!(
        "{name} keeps all versions of its rows (system versioning), so each lease leaves old versions behind for ever; the SQL deletes them"
    );
    let columns = table.definition.period().unwrap_or_default();
    let columns = columns.iter().map(|column| format!(", DROP COLUMN {}", quoted(column)));
    let drop = format!("DROP SYSTEM VERSIONING{}", columns.collect::<String>());
    // Without this variable, the server refuses to change a table with old versions.
    let mut sql = "SET SESSION system_versioning_alter_history = KEEP".to_owned();
    if is_partitioned(table) {
        sql = format!("{sql}; {}", alter(facts, "REMOVE PARTITIONING"));
    }
    sql = format!("{sql}; {}", alter(facts, &drop));
    found(Warning, "table", &text, Some(sql))
}

/// Constraints on the columns of a lease. They come before the columns, which cannot change under a
/// foreign key.
pub fn constraints(facts: &Facts) -> Vec<Finding> {
    let Some(table) = repairable_table(facts) else { return vec![] };
    let ours = |text: &str| COLUMNS.iter().find(|(name, ..)| names(text, name)).map(|c| c.0);
    let mut all = Vec::new();
    for constraint in table.definition.constraints() {
        let (text, drop) = match constraint {
            Constraint::ForeignKey { name, columns, parent } => {
                let Some(column) = ours(columns) else { continue };
                let text = format!(
                    "the foreign key {name} refuses each session whose {column} is not in {parent}, and delays leases while a program changes that row of {parent}"
                );
                (text, format!("DROP FOREIGN KEY {name}"))
            }
            Constraint::Condition { name, text } => {
                if ours(text).is_none() {
                    continue;
                }
                let text = format!(
                    "{name} checks every lease against {text}; if that refuses what is written, no lease is granted"
                );
                (text, format!("DROP CONSTRAINT {name}"))
            }
        };
        all.extend(found(Warning, "constraints", &text, Some(alter(facts, &drop))));
    }
    for (wanted, ..) in COLUMNS {
        let Some(words) = table.definition.column(wanted).filter(|words| words.has("CHECK")) else {
            continue;
        };
        let text = format!(
            "the column {wanted} checks every lease; if that refuses what is written, no lease is granted"
        );
        let words = words.without(&["CHECK", "*"]);
        let change =
            format!("MODIFY {} {}{}", column_name(table, wanted), words.first(), words.rest());
        all.extend(found(Warning, "constraints", &text, Some(alter(facts, &change))));
    }
    all
}

/// A column's quoted name, as the table spells it.
fn column_name(table: &TableFacts, name: &str) -> String {
    quoted(table.column(name).map_or(name, |column| &column.name))
}

pub fn columns(facts: &Facts) -> Vec<Finding> {
    let Some(table) = facts.table.as_ref().filter(|table| is_repairable(table)) else {
        return vec![];
    };
    let name = facts.table_name;
    if table.columns.is_empty() {
        return found(Problem, "columns", &format!("{name}: {NO_COLUMNS}"), None);
    }
    let mut all = Vec::new();
    for (wanted, width, what) in COLUMNS {
        if let Some(column) = table.column(wanted) {
            all.extend(wrong_column(facts, table, column, width, what));
            continue;
        }
        let has: Vec<_> = table.columns.iter().map(|column| &*column.name).collect();
        let has = has.join(", ");
        let text = format!(
            "{name} has no column {wanted} (it has {has}): is it the right table? Name it with SESSION_LOCK_TABLE"
        );
        all.extend(found(Problem, "columns", &text, None));
    }
    if all.is_empty() {
        let text = "id_prospect, id_device and timestamp can hold a lease";
        return found(Good, "columns", text, None);
    }
    all
}

/// The problem with a column that cannot hold every text of `min` characters.
fn wrong_column(
    facts: &Facts,
    table: &TableFacts,
    column: &Column,
    min: usize,
    what: &str,
) -> Vec<Finding> {
    let Column { name, data_type, width, nullable, collation, .. } = column;
    let words = table.definition.column(name);
    if words.as_ref().is_some_and(|words| words.has("GENERATED")) {
        let text = format!(
            "{}.{name} is a generated column, to which no lease can be written: is it the right table? Name it with SESSION_LOCK_TABLE",
            facts.table_name
        );
        return found(Problem, "columns", &text, None);
    }
    let is_id = min == lease::ID_MAX_CHARS;
    let is_wide = !is_id && is_wide(collation);
    let types = if is_id { &KEY_TYPES[..] } else { &TEXT_TYPES };
    let is_too_long = is_id && *width > min as u64 && !fits_in_key(table);
    let is_text = types.contains(&data_type.as_str());
    if is_text && *width >= min as u64 && !nullable && !is_wide && !is_too_long {
        return vec![];
    }
    let space = if collation.is_empty() { "" } else { " " };
    let null = if *nullable { " NULL" } else { "" };
    let text = format!(
        "{}.{name} is {data_type}({width}){space}{collation}{null}, but {what}, and never NULL",
        facts.table_name
    );
    let sql = words.map(|words| {
        // Bytes compare exactly. A wide text column gets a collation that also does.
        let is_bytes = data_type.ends_with("binary") || data_type.ends_with("blob");
        let charset = format!("CHARACTER SET utf8mb4 COLLATE {LEASE_COLLATION}");
        let charset = (is_wide || is_bytes).then_some(charset.as_str());
        repair_column(facts, table, column, &words.into_text(charset))
    });
    found(Problem, "columns", &text, sql)
}

/// Whether a character of a lease takes more than one byte in this collation.
pub fn is_wide(collation: &str) -> bool {
    WIDE_CHARACTER_SETS.iter().any(|wide| collation.starts_with(wide))
}

/// Whether both ids, with their current types, fit into one key.
fn fits_in_key(table: &TableFacts) -> bool {
    let ids = ["id_prospect", "id_device"].map(|name| table.column(name).map_or(0, |id| id.bytes));
    table.session_key().is_some() || ids.iter().sum::<u64>() <= KEY_MAX_BYTES
}

/// The statements that repair a column. They delete rows that the column then cannot hold, which
/// belong to no session.
fn repair_column(facts: &Facts, table: &TableFacts, column: &Column, becomes: &str) -> String {
    let name = quoted(&column.name);
    let delete = format!("DELETE FROM {} WHERE", quoted(facts.table_name));
    let mut sql = String::new();
    if column.nullable {
        sql = format!("{delete} {name} IS NULL; ");
    }
    if column.width > lease::ID_MAX_CHARS as u64 {
        sql = format!("{sql}{delete} CHAR_LENGTH({name}) > 255; ");
    }
    let is_in_key = table.definition.has_key_on(&column.name);
    let format = if is_in_key { row_format(table, column) } else { "" };
    sql + &alter(facts, &format!("MODIFY {name} {becomes}{format}"))
}

/// The row format that a key on this whole id column needs, unless the table has it.
pub fn row_format(table: &TableFacts, column: &Column) -> &'static str {
    // Other types may become text with four bytes per character; the width of TEXT is not known.
    let is_known = KEY_TYPES.contains(&column.data_type.as_str()) && column.width > 0;
    let bytes = if is_known { column.bytes / column.width } else { 4 };
    let is_old = OLD_ROW_FORMATS.contains(&table.row_format.as_str()) && table.engine == "InnoDB";
    let is_long = bytes * lease::ID_MAX_CHARS as u64 > OLD_KEY_PART_MAX_BYTES;
    if is_old && is_long { ", ROW_FORMAT = DYNAMIC" } else { "" }
}

/// Other columns that would need a value. They come after the primary key, which may contain one of
/// them.
pub fn other_columns(facts: &Facts) -> Vec<Finding> {
    let Some(table) = repairable_table(facts) else { return vec![] };
    let key = table.counting().map(|column| &column.name);
    let is_known = |column: &&Column| {
        let mut ours = COLUMNS.iter();
        ours.any(|(name, ..)| column.name.to_lowercase() == *name) || Some(&column.name) == key
    };
    let needed = table.columns.iter().filter(|column| !column.omittable && !is_known(column));
    let problem = |column: &Column| {
        let name = facts.table_name;
        let change = make_omittable(table, column).map(|change| alter(facts, &change));
        let remedy = if change.is_none() { ": give it one, or drop it" } else { "" };
        let text =
            format!("{name}.{} has no default, so no lease can be written{remedy}", column.name);
        found(Problem, "columns", &text, change)
    };
    needed.flat_map(problem).collect()
}

/// The change that gives a column a default. The default is NULL for types without a neutral value,
/// and for a column with a condition. `None` for the column of a spatial key, which cannot be NULL.
fn make_omittable(table: &TableFacts, column: &Column) -> Option<String> {
    let name = quoted(&column.name);
    let words = table.definition.column(&column.name)?;
    let mut constraints = table.definition.constraints();
    let is_checked = words.has("CHECK")
        || constraints.any(|constraint| match constraint {
            Constraint::ForeignKey { columns: text, .. } | Constraint::Condition { text, .. } => {
                names(text, &column.name)
            }
        });
    let default = match column.data_type.as_str() {
        "char" | "varchar" | "binary" | "varbinary" => "''",
        "decimal" | "float" | "double" => "0",
        _ if column.is_integer() => "0",
        _ => "",
    };
    if default.is_empty() && table.definition.has_spatial_key_on(&column.name) {
        return None;
    }
    Some(if is_checked || default.is_empty() {
        format!("MODIFY {name} {}", words.nullable())
    } else {
        format!("ALTER {name} SET DEFAULT {default}")
    })
}

pub fn collations(facts: &Facts) -> Vec<Finding> {
    let columns = repairable_table(facts).into_iter().flat_map(|table| &table.columns);
    let is_id = |column: &&Column| column.name.to_lowercase().starts_with("id_");
    let ids = columns.filter(is_id).filter(|column| !column.collation.is_empty());
    ids.flat_map(|column| {
        let is_case_sensitive = !column.collation.ends_with("_ci");
        let does = if is_case_sensitive { "distinguishes" } else { "does not distinguish" };
        let text = format!("{}: {}, {does} letter case", column.name, column.collation);
        found(Good, "collation", &text, None)
    })
    .collect()
}
