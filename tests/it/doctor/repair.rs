//! Lock tables as they occur in production. Each works, or `check` finds the problem, and the SQL
//! that it prints repairs only this.

use std::collections::{HashMap, HashSet};

use mysql::prelude::Queryable;
use serde_json::{Value, json};

use super::columns::{OTHER_COLUMNS, OUR_COLUMNS};
use super::keys::{KEYS, KEYS_SINCE_10_6};
use super::tables::{Case, IN_MARIADB, IN_MARIADB_SINCE_10_6, IN_MYSQL, KINDS};
use crate::world::{Engine, MariaDb, Schema, Service, Session, World, run, tests};

tests![
    columns_of_other_types_are_mended,
    keys_of_other_kinds_are_mended,
    tables_of_other_kinds_are_mended,
    columns_besides_the_leases_are_mended,
    what_only_one_of_the_databases_has_is_mended,
];

/// A name that must be quoted.
pub const LOCKS: &str = "order";

const DUPLICATE_KEY: u16 = 1062;

fn columns_of_other_types_are_mended(world: &World) {
    assert_mended(world, OUR_COLUMNS);
}

fn keys_of_other_kinds_are_mended(world: &World) {
    assert_mended(world, KEYS);
    if world.engine != Engine::MariaDb(MariaDb::V10_5) {
        assert_mended(world, KEYS_SINCE_10_6);
    }
}

fn tables_of_other_kinds_are_mended(world: &World) {
    assert_mended(world, KINDS);
}

fn columns_besides_the_leases_are_mended(world: &World) {
    assert_mended(world, OTHER_COLUMNS);
}

fn what_only_one_of_the_databases_has_is_mended(world: &World) {
    let cases = match world.engine {
        Engine::MariaDb(MariaDb::V10_5) => &[IN_MARIADB][..],
        Engine::MariaDb(_) => &[IN_MARIADB, IN_MARIADB_SINCE_10_6],
        Engine::MySql => &[IN_MYSQL],
    };
    for cases in cases {
        assert_mended(world, cases);
    }
}

fn assert_mended(world: &World, cases: &[Case]) {
    for case in cases {
        assert_is_mended(world, case);
    }
}

fn assert_is_mended(world: &World, case: &Case) {
    let name = case.name;
    let schema = world.schema();
    // An administrator's session, with the server's defaults.
    let mut admin = schema.connect();
    for statement in case.create {
        execute(&mut admin, statement)
            .unwrap_or_else(|error| panic!("{name}: {statement}: {error}"));
    }
    let before = Table::read(&mut admin);
    let was_unique = refuses_a_double(&mut admin);

    let found = check(&schema, case);
    let texts: Vec<_> = found.iter().map(|finding| finding["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), case.finds.len(), "{name}: {texts:#?}");
    for (text, part) in texts.iter().zip(case.finds) {
        assert!(text.contains(part), "{name}: {part} in {text}");
    }
    let repairs: Vec<_> = found.iter().filter_map(|finding| finding["sql"].as_str()).collect();
    for sql in &repairs {
        execute(&mut admin, sql).unwrap_or_else(|error| panic!("{name}: {sql}: {error}"));
        if was_unique {
            assert!(refuses_a_double(&mut admin), "{name}: two rows of one session after {sql}");
        }
    }

    let left = check(&schema, case);
    let is_known = |left: &&Value| left["sql"].is_null() && found.contains(left);
    assert_eq!(left.iter().find(|left| !is_known(left)), None, "{name}");
    assert_only_that_changed(case, &before, &Table::read(&mut admin));
    if case.grants {
        let service = Service::start(&schema.url(), &["--table", LOCKS]);
        let session = Session::new();
        let token = service.hold(&session);
        service.acquire(&session, json!({})).assert_held();
        assert_eq!(service.renew(&session, &token, 30_000).status, 200, "{name}");
        assert_eq!(service.release(&session, &token).status, 200, "{name}");
    }
}

/// The findings about the table that are not `ok`. The server's own settings and version are left
/// out: other tests need the settings unchanged.
fn check(schema: &Schema, case: &Case) -> Vec<Value> {
    let url = schema.url();
    let printed = run(&["check", "--json", "--database-url", &url, "--table", LOCKS]);
    let mut findings: Vec<Value> =
        serde_json::from_str(&printed.out).unwrap_or_else(|_| panic!("{}: {printed:?}", case.name));
    let is_about_server = |topic: &Value| *topic == "durability" || *topic == "lock waits";
    findings.retain(|finding| {
        let topic = &finding["topic"];
        finding["verdict"] != "ok" && !is_about_server(topic) && *topic != "messages"
    });
    findings
}

/// Executes statements, and fails if one of them fails.
fn execute(conn: &mut mysql::Conn, sql: &str) -> mysql::Result<()> {
    let mut result = conn.query_iter(sql)?;
    while let Some(set) = result.iter() {
        set.collect::<mysql::Result<Vec<_>>>()?;
    }
    Ok(())
}

/// Whether a second row of one session is refused as such.
fn refuses_a_double(conn: &mut mysql::Conn) -> bool {
    execute(conn, "START TRANSACTION").unwrap();
    let sql = format!(
        "INSERT INTO `{LOCKS}` (id_prospect, id_device, timestamp) SELECT id_prospect, id_device, timestamp FROM `{LOCKS}`"
    );
    let refused = execute(conn, &sql);
    execute(conn, "ROLLBACK").unwrap();
    matches!(refused, Err(mysql::Error::MySqlError(error)) if error.code == DUPLICATE_KEY)
}

/// A table and its rows.
struct Table {
    /// The lines of its definition, without the number of the next row.
    lines: Vec<String>,
    /// The collation, comment and default of each column.
    columns: HashMap<String, [Option<String>; 3]>,
    rows: HashSet<Vec<Option<String>>>,
}

impl Table {
    fn read(conn: &mut mysql::Conn) -> Self {
        let show: mysql::Row =
            conn.query_first(format!("SHOW CREATE TABLE `{LOCKS}`")).unwrap().unwrap();
        let definition: String = show.get(1).unwrap();
        let is_counter = |word: &&str| !word.starts_with("AUTO_INCREMENT=");
        let lines = definition.lines().map(|line| {
            let line = line.trim_end_matches(',');
            if !line.starts_with(')') {
                return line.to_owned();
            }
            line.split(' ').filter(is_counter).collect::<Vec<_>>().join(" ")
        });
        let columns = "SELECT column_name, collation_name, column_comment, column_default \
                       FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?";
        let columns: Vec<(String, _, _, _)> = conn.exec(columns, (LOCKS,)).unwrap();
        let rows = format!("SELECT id_prospect, id_device, timestamp FROM `{LOCKS}`");
        let rows: Vec<(Option<String>, Option<String>, Option<String>)> =
            conn.query(rows).unwrap_or_default();
        Self {
            lines: lines.collect(),
            columns: columns.into_iter().map(|(name, a, b, c)| (name, [a, b, c])).collect(),
            rows: rows.into_iter().map(|(a, b, c)| vec![a, b, c]).collect(),
        }
    }
}

fn assert_only_that_changed(case: &Case, before: &Table, after: &Table) {
    let name = case.name;
    let rest = |table: &Table| {
        let may_change = |line: &str| {
            case.changes
                .iter()
                .any(|name| line.contains(&format!("`{name}`")) || line.starts_with(name))
        };
        table.lines.iter().filter(|line| !may_change(line.trim())).cloned().collect::<Vec<_>>()
    };
    assert_eq!(rest(after), rest(before), "{name}");
    // A key may become a plain key, but must not disappear, except for a hash.
    let keys = |table: &Table| {
        let keys = table.lines.iter().filter(|line| !line.contains("USING HASH"));
        let names = keys.filter_map(|line| line.split_once(" KEY `"));
        names.map(|(_, rest)| rest.split("` (").next().unwrap().to_owned()).collect::<HashSet<_>>()
    };
    assert!(keys(before).is_subset(&keys(after)), "{name}: {:#?}", after.lines);
    let order = |table: &Table| {
        let names = table.lines.iter().filter_map(|line| line.trim().strip_prefix('`'));
        let names = names.map(|line| line.split("` ").next().unwrap().to_owned());
        names.filter(|name| before.columns.contains_key(name)).collect::<Vec<_>>()
    };
    let gone = |column: &String| !case.changes.contains(&column.as_str());
    if before.columns.keys().all(gone) || after.columns.len() >= before.columns.len() {
        assert_eq!(order(after), order(before), "{name}");
    }
    for (column, [collation, comment, default]) in &before.columns {
        let Some(now) = after.columns.get(column) else { continue };
        assert_eq!(&now[1], comment, "{name}: the comment of {column}");
        if let Some(collation) = collation.as_deref().filter(|text| !text.starts_with("utf16")) {
            assert_eq!(now[0].as_deref(), Some(collation), "{name}: the collation of {column}");
        }
        if let Some(default) = default.as_deref().filter(|text| *text != "NULL") {
            let now = now[2].as_deref().unwrap().to_lowercase();
            let is_clock = default.to_lowercase().starts_with("current_timestamp")
                && (now.starts_with("current_timestamp") || now.starts_with("now()"));
            assert!(
                is_clock || now.trim_matches('\'') == default.trim_matches('\'').to_lowercase(),
                "{name}: {column}'s {default} is {now}"
            );
        }
    }
    assert!(after.rows.is_subset(&before.rows), "{name}: {:?} {:?}", before.rows, after.rows);
    assert_eq!(before.rows.len() - after.rows.len(), case.deletes, "{name}: {:?}", after.rows);
}
