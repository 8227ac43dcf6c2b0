//! What `check` prints.

use serde_json::Value;
use session_lock::testing::DATABASE;

use crate::world::{
    DatabaseServer, Service, Session, TABLE, World, assert_says, free_port, migrate, run,
    run_check, tests,
};

tests![
    check_lists_what_is_right_too,
    check_prints_json_for_programs,
    the_sql_that_check_prints_repairs_every_problem,
    check_warns_of_ids_running_out_and_of_rows_dated_ahead,
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
