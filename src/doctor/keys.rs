//! What the keys of the lock table mean, and its triggers and ids. Each text is on one line, so
//! that a search finds it.

use super::Finding;
use super::Verdict::{Good, Problem, Warning};
use super::definition::{Words, whole_columns};
use super::facts::{Facts, TableFacts, UniqueKey};
use super::found;
use super::shape::{alter, repairable_table, row_format};
use crate::db::quoted;

/// The name for a new primary key: that of production, or the second name if a column already has
/// the first.
const NEW_KEYS: [&str; 2] = ["id_sessionX", "session_lock_id"];

/// The definition of the key that makes a session unique.
const SESSION_KEY: &str = "UNIQUE KEY (id_prospect, id_device)";

/// The name of the primary key after the repair.
fn future_key(table: &TableFacts) -> &str {
    let free = || NEW_KEYS.into_iter().find(|name| table.column(name).is_none());
    let counting = table.counting().map(|column| column.name.as_str());
    counting.or_else(free).unwrap_or_default()
}

pub fn primary(facts: &Facts) -> Vec<Finding> {
    let Some(table) = repairable_table(facts) else { return vec![] };
    if let Some(primary) = table.primary() {
        return found(Good, "primary key", &primary.name, None);
    }
    let text = format!(
        "{} has no AUTO_INCREMENT primary key of one integer column: is it the right table? If not, name it with SESSION_LOCK_TABLE",
        facts.table_name
    );
    let sql = primary_change(table).map(|change| alter(facts, &change));
    found(Problem, "primary key", &text, sql)
}

/// The change that gives the table a primary key that counts up. It is one statement, so that a
/// session never has two rows.
fn primary_change(table: &TableFacts) -> Option<String> {
    let key = match future_key(table) {
        // Other columns have all our names.
        "" => return None,
        key => quoted(key),
    };
    if table.columns.iter().any(|column| column.counts_up && !column.is_integer()) {
        // A table has at most one column that counts up, and this one may have fractions.
        return None;
    }
    let mut changes = Vec::new();
    let old = table.primary_key();
    if let Some(counting) = table.counting().filter(|column| !column.counts_up) {
        let words = table.definition.column(&counting.name)?;
        return Some(format!("MODIFY {key} {}", words.counting()));
    }
    if old.is_some() {
        changes.push("DROP PRIMARY KEY".to_owned());
    }
    changes.push(match table.counting() {
        Some(_) => format!("ADD PRIMARY KEY ({key})"),
        None => format!("ADD COLUMN {key} INT NOT NULL AUTO_INCREMENT PRIMARY KEY"),
    });
    if table.is_keyed_by_session() && table.session_key().is_none() {
        let columns = table.definition.key("PRIMARY")?;
        let columns = whole_columns(columns.first());
        let format = row_format_of_ids(table);
        changes.push(format!("ADD UNIQUE KEY {columns}{format}"));
    } else if old.is_some() {
        // Programs may find rows by the old key, unless the new one begins it.
        let words = table.definition.key("PRIMARY")?;
        if !words.first().to_lowercase().starts_with(&format!("({}", key.to_lowercase())) {
            changes.push(format!("ADD KEY {}", words.first()));
        }
    }
    Some(changes.join(", "))
}

/// The row format that a key on both ids needs, unless the table has it.
fn row_format_of_ids(table: &TableFacts) -> &'static str {
    let ids = ["id_prospect", "id_device"].into_iter().filter_map(|id| table.column(id));
    ids.map(|id| row_format(table, id)).find(|format| !format.is_empty()).unwrap_or_default()
}

pub fn unique_keys(facts: &Facts) -> Vec<Finding> {
    let Some(table) = repairable_table(facts) else { return vec![] };
    let mut all = session_key(facts, table);
    let name = facts.table_name;
    for other in table.other_keys().filter(|key| !is_harmless(table, key)) {
        let (key, columns) = (&other.name, &other.columns);
        let text = format!(
            "{name} has another unique key, {key} ({columns}), which would make one session's lease overwrite another's"
        );
        all.extend(found(
            Problem,
            "unique key",
            &text,
            Some(alter(facts, &plain_key(table, other))),
        ));
    }
    all
}

/// Whether only rows of the same session, or with the same id, can be equal in this key.
fn is_harmless(table: &TableFacts, key: &UniqueKey) -> bool {
    let columns: Vec<_> = key.columns.split(',').collect();
    let has = |name: &str| columns.contains(&name.to_lowercase().as_str());
    let is_partial = table.partial_session_key().is_some_and(|partial| partial.name == key.name);
    let is_the_sessions = has("id_prospect") && has("id_device") && !key.is_prefix;
    is_the_sessions || has(future_key(table)) || (is_partial && table.session_key().is_none())
}

/// The change that replaces a unique key by a plain one, which queries and foreign keys may need.
fn plain_key(table: &TableFacts, key: &UniqueKey) -> String {
    let name = quoted(&key.name);
    match table.definition.key(&key.name) {
        Some(words) if !words.has("HASH") => {
            format!("DROP INDEX {name}, ADD KEY {name} {}{}", words.first(), words.rest())
        }
        _ => format!("DROP INDEX {name}"),
    }
}

/// The finding about the key that makes a session unique.
fn session_key(facts: &Facts, table: &TableFacts) -> Vec<Finding> {
    let name = facts.table_name;
    if let Some(key) = table.session_key() {
        let words = table.definition.key(&key.name).unwrap_or_default();
        return hidden_key(facts, key, &words).unwrap_or_else(|| {
            let text = format!("{} (id_prospect, id_device)", key.name);
            found(Good, "unique key", &text, None)
        });
    }
    if table.is_keyed_by_session() {
        return vec![];
    }
    let format = row_format_of_ids(table);
    if let Some(key) = table.partial_session_key() {
        let (quoted, words) = (quoted(&key.name), table.definition.key(&key.name));
        let is_hash = words.as_ref().is_some_and(|words| words.has("HASH"));
        let does = if is_hash {
            "is a hash of long columns, with which no row can be found: each lease would lock the whole table"
        } else {
            "compares only the beginnings of id_prospect and id_device, so one session would block another"
        };
        let text = format!("{name} has a unique key, {}, that {does}", key.name);
        let sql = words.map(|words| {
            let columns = whole_columns(words.first());
            let rest = words.without(&["USING", "HASH"]).rest();
            let change =
                format!("DROP INDEX {quoted}, ADD UNIQUE KEY {quoted} {columns}{rest}{format}");
            alter(facts, &change)
        });
        return found(Problem, "unique key", &text, sql);
    }
    let text = format!(
        "{name} has no unique key on (id_prospect, id_device), so two workers could hold one session; run the SQL while the bot is stopped: it first deletes all but the newest row of each session"
    );
    let add = alter(facts, &format!("ADD {SESSION_KEY}{format}"));
    let sql = format!("{}; {add}", delete_older_rows(name, future_key(table)));
    found(Problem, "unique key", &text, Some(sql))
}

/// The problem with a key that is hidden from the server.
fn hidden_key(facts: &Facts, key: &UniqueKey, words: &Words) -> Option<Vec<Finding>> {
    let (hidden, visible) = match words {
        _ if words.has_in_comment("INVISIBLE") => ("invisible", "VISIBLE"),
        _ if words.has("IGNORED") => ("ignored", "NOT IGNORED"),
        _ => return None,
    };
    let text = format!("the key {} is {hidden}, so every statement that names it fails", key.name);
    let sql = alter(facts, &format!("ALTER INDEX {} {visible}", quoted(&key.name)));
    Some(found(Problem, "unique key", &text, Some(sql)))
}

/// The statement that deletes all but the newest row of each session.
fn delete_older_rows(table: &str, key: &str) -> String {
    let (table, key) = (quoted(table), quoted(key));
    format!(
        "DELETE older FROM {table} AS older JOIN (SELECT id_prospect, id_device, MAX({key}) AS newest FROM {table} GROUP BY id_prospect, id_device HAVING COUNT(*) > 1) AS doubled ON older.id_prospect = doubled.id_prospect AND older.id_device = doubled.id_device AND older.{key} < doubled.newest"
    )
}

pub fn triggers(facts: &Facts) -> Vec<Finding> {
    let triggers = facts.table.iter().flat_map(|table| &table.triggers);
    let warning = |trigger: &String| {
        let text = format!(
            "{trigger} runs on every lease; if it changes what is written, no lease is granted"
        );
        found(Warning, "triggers", &text, Some(format!("DROP TRIGGER {}", quoted(trigger))))
    };
    triggers.flat_map(warning).collect()
}

/// Foreign keys that refer to the rows of leases.
pub fn references(facts: &Facts) -> Vec<Finding> {
    let references = facts.table.iter().flat_map(|table| &table.references);
    let warning = |(table, key): &(String, String)| {
        let text = format!(
            "the foreign key {key} of {table} refers to {}, whose rows are deleted on release: either the release fails while {table} has a row for the lease, or that row is deleted or changed too",
            facts.table_name
        );
        let sql = format!("ALTER TABLE {} DROP FOREIGN KEY {}", quoted(table), quoted(key));
        found(Warning, "references", &text, Some(sql))
    };
    references.flat_map(warning).collect()
}

pub fn headroom(facts: &Facts) -> Vec<Finding> {
    let Some(table) = facts.lock_table() else { return vec![] };
    let used = format!("{} of {} ids used", table.next_id.saturating_sub(1), table.max_key);
    // At one half, months are left; at nine tenths, perhaps days.
    let urgency = |next_id: u64| match u128::from(next_id) * 10 / u128::from(table.max_key) {
        0..=4 => None,
        5..=8 => Some("over half"),
        _ => Some("NEARLY EXHAUSTED"),
    };
    let Some(urgent) = urgency(table.next_id) else {
        return found(Good, "id headroom", &used, None);
    };
    let text = format!(
        "{urgent}: {used}; with none left, old programs cannot insert; run the SQL at a quiet time, when no row has a high id"
    );
    let sql = alter(facts, "AUTO_INCREMENT = 1");
    if urgency(facts.highest_id.saturating_add(1)).is_none() {
        return found(Warning, "id headroom", &text, Some(sql));
    }
    let text = format!("{text} (the row with id {} prevents {sql})", facts.highest_id);
    found(Warning, "id headroom", &text, None)
}
