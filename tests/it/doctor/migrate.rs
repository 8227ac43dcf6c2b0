//! The tables that `migrate` creates, and its output if it may not create them.

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    DatabaseServer, Engine, MESSAGE_TABLE, Printed, Schema, Service, Session, TABLE, World,
    assert_says, migrate, run, run_check, tests,
};

tests![
    both_tables_compare_as_the_database_does,
    messages_compare_as_the_lock_table_that_is_there,
    old_defaults_and_strict_servers_are_no_obstacle,
    an_administrator_gets_the_sql_that_this_user_may_not_run,
    what_is_there_after_a_failure_is_said,
    an_existing_table_is_left_alone,
];

/// The collations of the columns of a table, without repetition.
fn collations(schema: &Schema, table: &str) -> Vec<String> {
    schema.rows(&format!(
        "SELECT DISTINCT collation_name FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name = '{table}' AND collation_name IS NOT NULL ORDER BY 1"
    ))
}

fn run_migrate(url: &str) -> Printed {
    run(&["migrate", "--database-url", url])
}

/// Acquires for a message and commits it.
fn assert_answers(service: &Service, session: &Session) {
    let token = service.hold_for(session, "m");
    assert_eq!(service.commit(session, &token, "m").status, 200);
    assert_eq!(service.release(session, &token).status, 200);
    let again = service.acquire(session, json!({"message_id": "m"}));
    assert_eq!(again.json["reason"], "duplicate");
}

fn both_tables_compare_as_the_database_does(world: &World) {
    for collation in
        ["utf8mb4_unicode_ci", "utf8mb4_bin", "latin1_german1_ci", "utf16_bin", "binary"]
    {
        let schema = world.schema();
        let charset = collation.split('_').next().unwrap();
        schema.sql(&format!(
            "ALTER DATABASE {} CHARACTER SET {charset} COLLATE '{collation}'",
            schema.name
        ));
        migrate(&schema.url());
        let collation = if collation == "binary" { "utf8mb4_bin" } else { collation };
        assert_eq!(collations(&schema, MESSAGE_TABLE), [collation]);
        // The lease is ASCII.
        let wide = ["utf16_bin", "utf8mb4_bin"];
        let expected = if collation == "utf16_bin" { &wide[..] } else { &[collation] };
        assert_eq!(collations(&schema, TABLE), expected);
        assert_eq!(run_check(&schema.url()).status, Some(0));
        let session = Session { device: "Köln".to_owned(), ..Session::new() };
        assert_answers(&Service::start(&schema.url(), &[]), &session);
    }
}

fn messages_compare_as_the_lock_table_that_is_there(world: &World) {
    let schema = world.schema();
    schema.sql(&format!(
        "CREATE TABLE {TABLE} (id INT AUTO_INCREMENT PRIMARY KEY, ID_PROSPECT VARCHAR(300) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL, \
         id_device VARCHAR(255) CHARACTER SET utf8mb3 COLLATE utf8mb3_unicode_ci NOT NULL, timestamp VARCHAR(255) NOT NULL, \
         UNIQUE KEY u (id_prospect, id_device))"
    ));
    migrate(&schema.url());
    let found: Vec<String> = schema.rows(&format!(
        "SELECT REPLACE(collation_name, 'utf8_', 'utf8mb3_') FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name = '{MESSAGE_TABLE}' AND column_name LIKE 'id%' ORDER BY column_name"
    ));
    assert_eq!(found, ["utf8mb3_unicode_ci", "latin1_bin"]);
    let checked = run_check(&schema.url());
    assert_says(&checked.out, &["ok       messages"]);
    assert_answers(&Service::start(&schema.url(), &[]), &Session::new());
}

fn old_defaults_and_strict_servers_are_no_obstacle(world: &World) {
    let mut options = vec![
        "--innodb-default-row-format=COMPACT",
        "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES",
        "--log-bin",
        "--server-id=1",
        "--lower-case-table-names=0",
    ];
    match world.engine {
        Engine::MariaDb(_) => {
            options.extend(["--gtid-strict-mode=ON", "--innodb-force-primary-key=ON"]);
        }
        Engine::MySql => options.extend([
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--sql-require-primary-key=ON",
            "--sql-generate-invisible-primary-key=ON",
        ]),
    }
    let server = DatabaseServer::start_migrated(world.engine, &options);
    let mut root = server.connect();
    for table in [TABLE, MESSAGE_TABLE] {
        let sql = format!(
            "SELECT row_format FROM information_schema.tables WHERE table_name = '{table}'"
        );
        assert_eq!(root.query_first::<String, _>(sql).unwrap().as_deref(), Some("Dynamic"));
    }
    assert_answers(&Service::start(&server.url(DATABASE), &[]), &Session::new());
}

fn an_administrator_gets_the_sql_that_this_user_may_not_run(world: &World) {
    for has_lock_table in [false, true] {
        let schema = world.schema();
        if has_lock_table {
            migrate(&schema.url());
            schema.sql(&format!("DROP TABLE {MESSAGE_TABLE}"));
            schema.sql(&format!(
                "ALTER TABLE {TABLE} MODIFY id_device VARCHAR(255) COLLATE utf8mb4_bin NOT NULL"
            ));
        }
        let url = schema.create_user("SELECT, DELETE");
        let refused = run_migrate(&url);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        let missing = if has_lock_table { MESSAGE_TABLE } else { TABLE };
        assert_says(
            &refused.err,
            &[
                "cannot create the missing tables",
                missing,
                "CREATE command denied",
                "administrator",
                "above",
            ],
        );
        assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
        assert!(!refused.out.to_uppercase().contains("SELECT ID_PROSPECT"), "{refused:?}");
        assert_eq!(refused.out.lines().count(), if has_lock_table { 2 } else { 4 }, "{refused:?}");
        // Run the SQL in another database, as an administrator may do.
        let mut root = world.database.connect();
        for line in refused.out.lines() {
            root.query_drop(line.strip_suffix(';').unwrap()).unwrap();
        }
        let done = run_migrate(&url);
        assert_eq!(done.status, Some(0), "{done:?}");
        if has_lock_table {
            schema.grant("INSERT, UPDATE");
        }
        let checked = run_check(&url);
        assert_says(&checked.out, &["ok       rights", "ok       messages"]);
        assert_answers(&Service::start(&url, &[]), &Session::new());
    }
}

fn what_is_there_after_a_failure_is_said(world: &World) {
    // A user who may create only the lock table.
    let schema = world.schema();
    let url = schema.create_user("SELECT");
    schema.sql(&format!("GRANT CREATE ON {}.{TABLE} TO bot_{}@'%'", schema.name, schema.name));
    let refused = run_migrate(&url);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert_says(&refused.err, &[MESSAGE_TABLE, "denied", &format!("{TABLE} was created")]);
    assert!(refused.out.starts_with("CREATE TABLE IF NOT EXISTS"), "{refused:?}");
    // A lock table whose collations the message table cannot have.
    let schema = world.schema();
    schema.sql(&format!("CREATE TABLE {TABLE} (id INT PRIMARY KEY, id_prospect BIGINT)"));
    let refused = run_migrate(&schema.url());
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert_says(
        &refused.err,
        &[MESSAGE_TABLE, "has no text column id_prospect", "session-lock check"],
    );
    assert_eq!(refused.out, "");
    // A user who may create tables, and not read them.
    let schema = world.own_table();
    schema.sql(&format!("DROP TABLE {MESSAGE_TABLE}"));
    let refused = run_migrate(&schema.create_user("CREATE"));
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert_says(&refused.err, &[TABLE, "may read no column of it", "GRANT it SELECT"]);
}

fn an_existing_table_is_left_alone(world: &World) {
    let schema = world.schema();
    let definition =
        format!("CREATE TABLE {TABLE} (id INT PRIMARY KEY, id_prospect CHAR(3), id_device TEXT)");
    schema.sql(&definition);
    let show = || schema.rows::<(String, String)>(&format!("SHOW CREATE TABLE {TABLE}"));
    let before = show();
    migrate(&schema.url());
    migrate(&schema.url());
    assert_eq!(show(), before);
}
