//! What `check` prints.

use mysql::prelude::Queryable;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use session_lock::testing::{DATABASE, Id};

use crate::world::{
    DatabaseServer, Service, Session, TABLE, World, assert_says, free_port, migrate, run,
    run_check, tests,
};

tests![
    check_lists_what_is_right_too,
    check_prints_json_for_programs,
    the_sql_that_check_prints_repairs_every_problem,
    check_warns_of_ids_running_out_and_of_rows_dated_ahead,
    rows_whose_ids_a_request_may_not_have_are_counted,
    a_big_table_is_not_read_to_its_end,
    an_administrator_can_paste_a_grant_whatever_the_names_are,
];

fn check_lists_what_is_right_too(world: &World) {
    let durable = ["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"];
    let server = DatabaseServer::start_migrated(world.engine, &durable);
    let printed = run_check(&server.url(DATABASE));
    assert_eq!(printed.status, Some(0), "{printed:?}");
    for topic in [
        "server",
        "time zone",
        "clock",
        "binlog",
        "durability",
        "table",
        "columns",
        "collation",
        "unique key",
        "primary key",
        "id headroom",
        "rights",
        "rows",
    ] {
        assert_says(&printed.out, &[&format!("ok       {topic}")]);
    }
    let closed = format!("mysql://root@127.0.0.1:{}/x", free_port());
    let printed = run_check(&closed);
    assert_eq!(printed.status, Some(1));
    assert_says(&printed.out, &["problem  server", "cannot be reached", "is it running"]);
}

fn check_prints_json_for_programs(world: &World) {
    let schema = world.schema();
    let json = |status| {
        let printed = run(&["check", "--json", "--database-url", &schema.url()]);
        assert_eq!(printed.status, Some(status), "{printed:?}");
        serde_json::from_str::<Vec<Value>>(&printed.out).unwrap()
    };
    let is_about_the_table = |finding: &Value| finding["topic"] == "table";
    let missing = json(1);
    let missing = missing.iter().find(|finding| is_about_the_table(finding)).unwrap();
    assert_eq!(missing["verdict"], "problem");
    assert!(missing["text"].as_str().unwrap().contains("session-lock migrate"));
    migrate(&schema.url());
    assert!(json(0).iter().all(|finding| finding["verdict"] != "problem"));
}

fn the_sql_that_check_prints_repairs_every_problem(world: &World) {
    let schema = world.schema();
    schema.sql(&format!(
        "CREATE TABLE {TABLE} (id_sessionX INT AUTO_INCREMENT PRIMARY KEY, \
         id_prospect VARCHAR(100) NOT NULL, id_device VARCHAR(100), timestamp DATETIME, \
         tenant INT NOT NULL, label VARCHAR(20) NOT NULL, since DATETIME NOT NULL, notes TEXT NOT NULL, \
         UNIQUE KEY per_device (id_device)) ENGINE = MyISAM AUTO_INCREMENT = 2000000000"
    ));
    schema.sql(&format!(
        "CREATE TRIGGER noted BEFORE INSERT ON {TABLE} FOR EACH ROW SET NEW.notes = 'x'"
    ));
    let url = schema.create_user("SELECT, TRIGGER");
    let mut repairs = Vec::new();
    // The rights are checked only when the table's shape is right.
    for _ in 0..3 {
        let printed = run(&["check", "--json", "--database-url", &url]);
        let findings: Vec<Value> = serde_json::from_str(&printed.out).unwrap();
        for finding in &findings {
            // Other tests need the server's own settings as they are.
            if finding["topic"] != "durability"
                && let Some(sql) = finding["sql"].as_str()
            {
                assert!(finding["verdict"] != "ok", "{finding}");
                schema.sql(sql);
                repairs.push(sql.to_owned());
            }
        }
    }
    assert_eq!(repairs.len(), 13, "{repairs:#?}");
    let repaired = run_check(&url);
    assert_eq!(repaired.status, Some(0), "{repaired:?}");
    Service::start(&url, &[]).hold(&Session::new());
}

fn check_warns_of_ids_running_out_and_of_rows_dated_ahead(world: &World) {
    let schema = world.own_table();
    let check = || run_check(&schema.url()).out;
    for (next_id, says) in [(1_100_000_000_u64, "over half"), (2_000_000_000, "NEARLY EXHAUSTED")] {
        schema.sql(&format!("ALTER TABLE {TABLE} AUTO_INCREMENT = {next_id}"));
        assert_says(&check(), &["warning  id headroom", says, "AUTO_INCREMENT = 1"]);
    }
    schema.sql(&format!("INSERT INTO {TABLE} VALUES (NULL, 'p', 'd', '2099-01-01 00:00:00')"));
    assert_says(&check(), &["warning  rows", "1 dated ahead"]);
}

fn rows_whose_ids_a_request_may_not_have_are_counted(world: &World) {
    let schema = world.own_table();
    for id in ["id_prospect", "id_device"] {
        let collation = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
        schema.sql(&format!("ALTER TABLE {TABLE} MODIFY {id} VARCHAR(300) {collation} NOT NULL"));
    }
    let odd = |c: &char| c.is_control() || c.is_whitespace();
    let characters = ('\0'..='\u{3100}')
        .filter(odd)
        .chain(['x', 'é', '\u{ad}', '\u{200b}', '\u{feff}', '📱', '\'']);
    let mut ids: Vec<_> = characters
        .flat_map(|c| [c.to_string(), format!("{c}a"), format!("a{c}b"), format!("a{c}")])
        .collect();
    ids.extend([String::new(), "é".repeat(255), "é".repeat(256), "60 12".to_owned()]);
    let refused = ids.iter().filter(|id| Id::new(id).is_err()).count();
    assert!(refused > 250 && refused < ids.len(), "{refused} of {}", ids.len());
    let mut conn = schema.connect();
    for columns in ["id_prospect, id_device", "id_device, id_prospect"] {
        let sql = format!("INSERT INTO {TABLE} ({columns}, timestamp) VALUES (?, ?, '')");
        let numbered =
            ids.iter().enumerate().map(|(number, id)| (id, format!("{columns}{number}")));
        conn.exec_batch(sql, numbered).unwrap();
    }
    let printed = run_check(&schema.url());
    assert_eq!(printed.status, Some(0), "{printed:?}");
    let rows = format!("warning  row ids      {} have ids that session-lock refuses", 2 * refused);
    assert_says(&printed.out, &[&rows]);
    // A control character is invisible, so it is escaped.
    schema.sql(&format!("DELETE FROM {TABLE}"));
    conn.exec_drop(format!("INSERT INTO {TABLE} VALUES (1, ?, 'd', '')"), ("a\u{85}b",)).unwrap();
    let example =
        "1 have ids that session-lock refuses (id_prospect=\"a\\u{85}b\" id_device=\"d\" for one)";
    assert_says(&run_check(&schema.url()).out, &[example]);
}

fn a_big_table_is_not_read_to_its_end(world: &World) {
    const ROWS_MAX: u64 = 100_000;
    let schema = world.own_table();
    let insert = |id: &str| {
        schema.sql(&format!("INSERT INTO {TABLE} VALUES (NULL, '{id}', 'd', '2099-01-01')"));
    };
    insert(" oldest");
    schema.fill(ROWS_MAX - 1);
    let says = |count| {
        let printed = run_check(&schema.url()).out;
        assert_says(
            &printed,
            &[&format!("rows         {count} dated ahead"), &format!("{count} have ids")],
        );
    };
    says("at least 1");
    insert(" newer");
    says("at least 1");
    insert(" newest");
    says("at least 2");
    schema.sql(&format!("DELETE FROM {TABLE} WHERE id_device = 'bot'"));
    says("3");
}

fn an_administrator_can_paste_a_grant_whatever_the_names_are(world: &World) {
    let names = ["we`ird-1", "it's \"x\""];
    let mut root = world.database.connect();
    root.query_drop("CREATE DATABASE `we``ird-1`").unwrap();
    root.query_drop("CREATE USER `it's \"x\"`@`127.0.0.%` IDENTIFIED BY 'pw'").unwrap();
    root.query_drop("GRANT SELECT ON `we``ird-1`.* TO `it's \"x\"`@`127.0.0.%`").unwrap();
    let [database, user] =
        names.map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string());
    let url = |user: &str| world.database.url(&database).replace("root", user);
    let run =
        |command, user: &str| run(&[command, "--database-url", &url(user), "--table", "order"]);
    let (root_user, user) = ("root", format!("{user}:pw"));
    assert_eq!(run("migrate", root_user).status, Some(0));
    let refused = run("check", &user);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    let grants: Vec<_> =
        refused.out.match_indices("GRANT ").map(|(at, _)| &refused.out[at..]).collect();
    assert_eq!(grants.len(), 2, "{refused:?}");
    for grant in grants {
        // One ends its line, the other is followed by words.
        let end = grant.find([';', '\n']).unwrap();
        root.query_drop(&grant[..end]).unwrap();
    }
    let granted = run("check", &user);
    assert_eq!(granted.status, Some(0), "{granted:?}");
    assert_says(&granted.out, &["ok       rights", "ok       messages"]);
}
