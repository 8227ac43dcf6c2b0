//! What `serve`, `check` and `migrate` say of a database: what is wrong, and what to do.

use crate::world::{
    DatabaseServer, PATIENCE, Printed, Schema, Service, Session, TABLE, World, binary, migrate,
    run, tests,
};
use mysql::prelude::Queryable;
use session_lock::testing::DATABASE;
use std::process::Command;
use std::time::Instant;

tests![
    a_server_whose_sysdate_is_now_is_refused,
    a_missing_table_is_named,
    a_missing_column_is_named,
    a_timestamp_that_cannot_hold_a_lease_is_refused,
    a_missing_or_additional_unique_key_is_refused,
    another_engine_than_innodb_is_refused,
    a_column_without_a_default_is_refused,
    a_refused_login_is_said_and_its_password_is_not,
    missing_rights_are_named,
    a_wrong_setting_is_one_line_and_status_2,
    a_server_with_wrong_settings_is_refused_and_odd_modes_do_no_harm,
    a_database_that_is_not_there_yet_is_waited_for,
    a_read_only_database_is_waited_for,
    check_lists_what_is_right_too,
    check_prints_json_for_programs,
    output_that_nobody_reads_is_no_failure,
    check_says_the_exact_sql_that_mends_it_all,
    check_warns_of_ids_running_out_and_of_rows_dated_ahead,
    migrate_creates_the_table_once_and_alters_nothing,
];

const COLUMNS: &str = "id_sessionX INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL";

/// Runs `serve` on a table of this definition, which it must refuse: its lines.
fn refused(world: &World, definition: Option<&str>) -> String {
    let schema = world.schema();
    if let Some(definition) = definition {
        schema.sql(&format!("CREATE TABLE {TABLE} ({definition}"));
    }
    let served = serve(&schema);
    let checked = run(&["check", "--database-url", &schema.url()]);
    assert_eq!((served.status, checked.status), (Some(1), Some(1)), "{served:?} {checked:?}");
    let problems = |text: &str| {
        text.lines().filter(|l| l.starts_with("problem")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(problems(&served.err), problems(&checked.out), "both say the same");
    let lines = problems(&served.err);
    assert_eq!(lines.len(), 1, "{served:?}");
    lines[0].clone()
}

fn serve(schema: &Schema) -> Printed {
    run(&["serve", "--listen", "127.0.0.1:0", "--database-url", &schema.url()])
}

#[track_caller]
fn assert_says(line: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} in {line}");
}

fn a_missing_table_is_named(world: &World) {
    assert_says(&refused(world, None), &[TABLE, "migrate", "SESSION_LOCK_TABLE"]);
}

fn a_missing_column_is_named(world: &World) {
    // The production incident: a program that named columns which the table did not have.
    let renamed = "id_sessionX INT AUTO_INCREMENT PRIMARY KEY, phone_number VARCHAR(255) NOT NULL DEFAULT '', \
                   id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL)";
    let schema = world.schema();
    schema.sql(&format!("CREATE TABLE {TABLE} ({renamed}"));
    let served = serve(&schema);
    assert_eq!(served.status, Some(1));
    assert_says(&served.err, &["no column id_prospect", "phone_number", "SESSION_LOCK_TABLE"]);
}

fn a_timestamp_that_cannot_hold_a_lease_is_refused(world: &World) {
    for wrong in [
        "VARCHAR(61) NOT NULL",
        "DATETIME NOT NULL",
        "BIGINT NOT NULL",
        "VARCHAR(255)",
        "VARCHAR(255) CHARACTER SET utf16 NOT NULL",
    ] {
        let definition =
            format!("{COLUMNS}, timestamp {wrong}, UNIQUE KEY u (id_prospect, id_device))");
        assert_says(
            &refused(world, Some(&definition)),
            &["timestamp", "MODIFY timestamp VARCHAR(255)"],
        );
    }
    let schema = world.schema();
    schema.sql(&format!(
        "CREATE TABLE {TABLE} ({COLUMNS}, timestamp VARCHAR(62) NOT NULL, UNIQUE KEY u (id_device, id_prospect))"
    ));
    let service = Service::start(&schema.url(), &[]);
    service.hold(&Session::new());
}

fn a_missing_or_additional_unique_key_is_refused(world: &World) {
    let table = |keys: &str| {
        refused(world, Some(&format!("{COLUMNS}, timestamp VARCHAR(255) NOT NULL{keys})")))
    };
    assert_says(&table(""), &["no unique key", "ADD UNIQUE KEY"]);
    assert_says(&table(", KEY k (id_prospect, id_device)"), &["no unique key", "ADD UNIQUE KEY"]);
    let additional = ", UNIQUE KEY u (id_prospect, id_device), UNIQUE KEY per_device (id_device)";
    assert_says(&table(additional), &["per_device", "DROP INDEX `per_device`"]);
    let schema = world.schema();
    let shortened = "UNIQUE KEY u (id_prospect(10), id_device)";
    schema.sql(&format!(
        "CREATE TABLE {TABLE} ({COLUMNS}, timestamp VARCHAR(255) NOT NULL, {shortened})"
    ));
    assert_eq!(serve(&schema).status, Some(1));
}

fn another_engine_than_innodb_is_refused(world: &World) {
    // The database's default key length allows no more in MyISAM.
    let definition = format!(
        "{COLUMNS}, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)) ENGINE=MyISAM CHARSET=latin1"
    );
    assert_says(&refused(world, Some(&definition)), &["MyISAM", "ENGINE = InnoDB"]);
}

fn a_column_without_a_default_is_refused(world: &World) {
    let definition = format!(
        "{COLUMNS}, timestamp VARCHAR(255) NOT NULL, stage INT NOT NULL, UNIQUE KEY u (id_prospect, id_device))"
    );
    assert_says(&refused(world, Some(&definition)), &["stage", "SET DEFAULT"]);
}

fn a_refused_login_is_said_and_its_password_is_not(world: &World) {
    let schema = world.schema();
    schema.sql("CREATE USER wrong_login@'%' IDENTIFIED BY 'right'");
    let url =
        format!("mysql://wrong_login:s3cret@127.0.0.1:{}/{}", world.database.port, schema.name);
    let served = run(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url]);
    assert_eq!(served.status, Some(1), "{served:?}");
    assert_says(&served.err, &["refuses this login", "DATABASE_URL"]);
    assert!(!served.err.contains("s3cret"), "{served:?}");
    let no_schema = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--database-url",
        &world.database.url("no_such_schema"),
    ]);
    assert_eq!(no_schema.status, Some(1), "{no_schema:?}");
}

fn check_says_the_exact_sql_that_mends_it_all(world: &World) {
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
    let user = format!("bot_{}", schema.name);
    schema.sql(&format!("CREATE USER {user}@'%' IDENTIFIED BY 'pw'"));
    schema.sql(&format!("GRANT SELECT, TRIGGER ON {}.* TO {user}@'%'", schema.name));
    let url = format!("mysql://{user}:pw@127.0.0.1:{}/{}", world.database.port, schema.name);
    let mut said = Vec::new();
    // What is wrong with its shape hides what is wrong with the rights.
    for _ in 0..3 {
        let printed = run(&["check", "--json", "--database-url", &url]);
        let findings: Vec<serde_json::Value> = serde_json::from_str(&printed.out).unwrap();
        for finding in &findings {
            // Of the server itself, which is everybody's here.
            if finding["topic"] != "durability"
                && let Some(sql) = finding["sql"].as_str()
            {
                assert!(finding["verdict"] != "ok", "{finding}");
                schema.sql(sql);
                said.push(sql.to_owned());
            }
        }
    }
    assert_eq!(said.len(), 13, "{said:#?}");
    let mended = run(&["check", "--database-url", &url]);
    assert_eq!(mended.status, Some(0), "{mended:?}");
    Service::start(&url, &[]).hold(&Session::new());
}

fn missing_rights_are_named(world: &World) {
    let schema = world.schema();
    let user = format!("reader_{}", schema.name);
    migrate(&schema.url());
    schema.sql(&format!("CREATE USER {user}@'%' IDENTIFIED BY 'pw'"));
    schema.sql(&format!("GRANT SELECT, INSERT, UPDATE ON {}.* TO {user}@'%'", schema.name));
    let url = format!("mysql://{user}:pw@127.0.0.1:{}/{}", world.database.port, schema.name);
    let served = run(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url]);
    assert_eq!(served.status, Some(1), "{served:?}");
    let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON `{}`.{TABLE}", schema.name);
    assert_says(&served.err, &["rights", &grant, "DELETE command denied"]);
    schema.sql(&format!("GRANT DELETE ON {}.* TO {user}@'%'", schema.name));
    assert_eq!(run(&["check", "--database-url", &url]).status, Some(0));
}

fn a_wrong_setting_is_one_line_and_status_2(world: &World) {
    let url = world.database.url("session_lock");
    for wrong in [
        &["serve", "--database-url", "nonsense"][..],
        &["serve"],
        &["serve", "--database-url", &url, "--workers", "many"],
        &["serve", "--database-url", &url, "--time-zone", "Asia/Kuala_Lumpur"],
        &["check", "--database-url", &url, "--tabel", "x"],
        &["sreve"],
    ] {
        let printed = run(wrong);
        assert_eq!(
            (printed.status, printed.err.lines().count()),
            (Some(2), 1),
            "{wrong:?} {printed:?}"
        );
    }
    let busy =
        run(&["serve", "--database-url", &url, "--listen", &world.service.address.to_string()]);
    assert_eq!(busy.status, Some(1));
    assert_says(&busy.err, &["cannot listen", "SESSION_LOCK_LISTEN"]);
    assert_eq!(run(&["--version"]).status, Some(0));
    assert_says(
        &run(&["--help"]).out,
        &["session-lock serve", "DATABASE_URL", "SESSION_LOCK_TIME_ZONE"],
    );
}

fn a_server_with_wrong_settings_is_refused_and_odd_modes_do_no_harm(world: &World) {
    let server = DatabaseServer::start(
        world.engine,
        &[
            "--log-bin",
            "--server-id=1",
            "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT",
            "--default-time-zone=+08:00",
        ],
    );
    let url = server.url("session_lock");
    let root = |sql: &str| server.connect().query_drop(sql).unwrap();
    let check = |flags: &[&str]| run(&[&["check", "--database-url", &url], flags].concat());

    migrate(&url);
    let printed = check(&[]);
    assert_eq!(printed.status, Some(1), "{printed:?}");
    assert_says(&printed.out, &["problem  time zone", "SESSION_LOCK_TIME_ZONE=+08:00"]);
    assert_eq!(run(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url]).status, Some(1));
    let printed = check(&["--time-zone", "+07:00"]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
    assert_says(&printed.out, &["warning  time zone"]);

    // What is set is what is written, whatever the server's own zone is.
    let other = Service::start(&url, &["--time-zone", "-03:00"]);
    let session = Session::new();
    other.hold(&session);
    let age_s: Option<i64> = server
        .connect()
        .query_first(format!(
            "SELECT TIMESTAMPDIFF(SECOND, timestamp, UTC_TIMESTAMP() - INTERVAL 3 HOUR) FROM {TABLE} WHERE {session}"
        ))
        .unwrap();
    assert!((-1..30).contains(&age_s.unwrap()), "{age_s:?}");
    let service = Service::start(&url, &["--time-zone", "+08:00"]);
    crate::http::fields::odd_ids_work(&service);
    // An old neighbour writes local time, and reads ours as local time.
    let session = Session::new();
    root(&format!(
        "INSERT INTO {TABLE} (id_device, id_prospect, timestamp) VALUES ('{}', '{}', NOW())",
        session.device, session.prospect
    ));
    let held = service.acquire(&session, serde_json::json!({}));
    held.assert_held();
    assert!(held.number("remaining_ms") <= 30_000);
    let ours = Session::new();
    service.hold(&ours);
    let age_s: Option<i64> = server
        .connect()
        .query_first(format!(
            "SELECT TIMESTAMPDIFF(SECOND, timestamp, NOW()) FROM {TABLE} WHERE {ours}"
        ))
        .unwrap();
    assert!((-1..30).contains(&age_s.unwrap()), "{age_s:?}");

    let printed = check(&["--time-zone", "+08:00"]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
    assert_says(&printed.out, &["innodb_flush_log_at_trx_commit = 1", "sync_binlog = 1"]);
    root("SET GLOBAL binlog_format = 'STATEMENT'");
    let printed = check(&["--time-zone", "+08:00"]);
    assert_eq!(printed.status, Some(1), "{printed:?}");
    assert_says(&printed.out, &["problem  binlog", "SET GLOBAL binlog_format = 'ROW'"]);
}

fn a_database_that_is_not_there_yet_is_waited_for(world: &World) {
    let port = crate::world::free_port();
    let url = format!("mysql://root@127.0.0.1:{port}/session_lock");
    let service = Service::start_unready(&url, &[]);
    service.wait_for_line("not ready: the database cannot be reached");
    assert_eq!(service.get("/healthz").status, 200);
    for reply in [
        service.get("/readyz"),
        service.acquire(&Session::new(), serde_json::json!({})),
        service.acquire(&Session::new(), serde_json::json!({"message_id": "m"})),
    ] {
        reply.assert_refused(503, "unavailable");
        assert_eq!(reply.retry_after_s, Some(1));
    }
    let says = |service: &Service, line| service.text("/metrics").lines().any(|said| said == line);
    assert!(says(&service, "session_lock_database_up 0"));
    let _server = DatabaseServer::start_on(world.engine, port, &[]);
    // Between the server's start and this, the service may see an empty schema, and say so.
    let mut service = service;
    let migrated = run(&["migrate", "--database-url", &url]);
    assert_eq!(migrated.status, Some(0), "{migrated:?}");
    let until = Instant::now() + PATIENCE;
    while service.log().last().is_some_and(|line| line != "INFO  ready") && Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(20));
        if service.log().iter().any(|line| line.starts_with("problem")) {
            assert_eq!(service.wait(), Some(1));
            service = Service::start(&url, &[]);
        }
    }
    assert_eq!(service.get("/readyz").status, 200);
    assert!(says(&service, "session_lock_database_up 1"));
    service.hold(&Session::new());
}

fn a_read_only_database_is_waited_for(world: &World) {
    let server = DatabaseServer::start(world.engine, &[]);
    let root = |sql: &str| server.connect().query_drop(sql).unwrap();
    let url = server.url("session_lock");
    migrate(&url);
    // A user like a bot's: root may write to a read-only MariaDB.
    root("CREATE USER bot@'%' IDENTIFIED BY 'pw'");
    root("GRANT SELECT, INSERT, UPDATE, DELETE ON session_lock.* TO bot@'%'");
    let url = url.replace("root@", "bot:pw@");
    root("SET GLOBAL read_only = 1");
    let service = Service::start_unready(&url, &[]);
    service.wait_for_line("not ready: the database is read-only");
    service.get("/readyz").assert_refused(503, "unavailable");
    assert_says(&run(&["check", "--database-url", &url]).out, &["problem  writes", "read-only"]);
    root("SET GLOBAL read_only = 0");
    service.wait_for_line("INFO  ready");
    let session = Session::new();
    let owner_token = service.hold(&session);
    root("SET GLOBAL read_only = 1");
    service.get("/readyz").assert_refused(503, "unavailable");
    service.acquire(&Session::new(), serde_json::json!({})).assert_refused(503, "unavailable");
    service.release(&session, &owner_token).assert_refused(503, "unavailable");
    root("SET GLOBAL read_only = 0");
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.release(&session, &owner_token).status, 200);
}

fn check_lists_what_is_right_too(world: &World) {
    let durable = ["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"];
    let server = DatabaseServer::start(world.engine, &durable);
    let url = server.url(DATABASE);
    migrate(&url);
    let printed = run(&["check", "--database-url", &url]);
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
    let closed = format!("mysql://root@127.0.0.1:{}/x", crate::world::free_port());
    let printed = run(&["check", "--database-url", &closed]);
    assert_eq!(printed.status, Some(1));
    assert_says(&printed.out, &["problem  server", "cannot be reached"]);
}

fn check_prints_json_for_programs(world: &World) {
    let schema = world.schema();
    let json = |status| {
        let printed = run(&["check", "--json", "--database-url", &schema.url()]);
        assert_eq!(printed.status, Some(status), "{printed:?}");
        serde_json::from_str::<Vec<serde_json::Value>>(&printed.out).unwrap()
    };
    let is_about_the_table = |finding: &serde_json::Value| finding["topic"] == "table";
    let missing = json(1);
    let missing = missing.iter().find(|finding| is_about_the_table(finding)).unwrap();
    assert_eq!(missing["verdict"], "problem");
    assert!(missing["text"].as_str().unwrap().contains("session-lock migrate"));
    migrate(&schema.url());
    assert!(json(0).iter().all(|finding| finding["verdict"] != "problem"));
}

fn output_that_nobody_reads_is_no_failure(world: &World) {
    let schema = world.schema();
    migrate(&schema.url());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut check = Command::new(binary());
    check.args(["check", "--database-url", &schema.url()]).stdout(writer);
    let printed = Printed::from(check.output().unwrap());
    assert_eq!((printed.status, &*printed.err), (Some(0), ""), "{printed:?}");
}

fn check_warns_of_ids_running_out_and_of_rows_dated_ahead(world: &World) {
    let schema = world.own_table();
    let check = || run(&["check", "--database-url", &schema.url()]).out;
    for (next_id, says) in [(1_100_000_000_u64, "over half"), (2_000_000_000, "NEARLY EXHAUSTED")] {
        schema.sql(&format!("ALTER TABLE {TABLE} AUTO_INCREMENT = {next_id}"));
        assert_says(&check(), &["warning  id headroom", says, "AUTO_INCREMENT = 1"]);
    }
    schema.sql(&format!("INSERT INTO {TABLE} VALUES (NULL, 'p', 'd', '2099-01-01 00:00:00')"));
    assert_says(&check(), &["warning  rows", "1 dated ahead"]);
}

fn migrate_creates_the_table_once_and_alters_nothing(world: &World) {
    let schema = world.schema();
    schema.sql("CREATE TABLE mine (id INT)");
    for _ in 0..2 {
        migrate(&schema.url());
    }
    let printed = run(&["migrate", "--database-url", &schema.url(), "--table", "mine"]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
    let columns: Vec<mysql::Row> = schema.connect().query("SHOW COLUMNS FROM mine").unwrap();
    assert_eq!(columns.len(), 1);
}

fn a_server_whose_sysdate_is_now_is_refused(world: &World) {
    let server = DatabaseServer::start(world.engine, &["--sysdate-is-now"]);
    let url = server.url(DATABASE);
    migrate(&url);
    let serve = ["serve", "--database-url", &url, "--listen", "127.0.0.1:0"];
    for arguments in [&["check", "--database-url", &url][..], &serve] {
        let printed = run(arguments);
        assert_eq!(printed.status, Some(1), "{printed:?}");
        let said = printed.out + &printed.err;
        assert!(said.contains("take sysdate-is-now out of my.cnf"), "{said}");
    }
}
