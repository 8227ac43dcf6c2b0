//! Settings of the database server, logins and rights.

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    DatabaseServer, Engine, Group, MariaDb, Service, Session, TABLE, World, assert_says, migrate,
    old_program, run, run_check, run_serve, tests,
};

tests![
    a_server_whose_sysdate_is_now_is_refused,
    a_refused_login_is_said_and_its_password_is_not,
    missing_rights_are_named,
    what_one_engine_does_worse_is_warned_of,
    a_server_with_wrong_settings_is_refused_and_odd_modes_do_no_harm,
    a_server_that_takes_only_short_packets_is_found,
];

fn a_server_whose_sysdate_is_now_is_refused(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &["--sysdate-is-now"]);
    let url = server.url(DATABASE);
    for printed in [run_check(&url), run_serve(&url)] {
        assert_eq!(printed.status, Some(1), "{printed:?}");
        let said = printed.out + &printed.err;
        assert!(said.contains("take sysdate-is-now out of my.cnf"), "{said}");
    }
}

fn a_refused_login_is_said_and_its_password_is_not(world: &World) {
    let schema = world.schema();
    schema.sql("CREATE USER wrong_login@'%' IDENTIFIED BY 'right'");
    let url = schema.url().replace("root@", "wrong_login:s3cret@");
    let served = run_serve(&url);
    assert_eq!(served.status, Some(1), "{served:?}");
    assert_says(&served.err, &["refuses this login", "DATABASE_URL"]);
    assert!(!served.err.contains("s3cret"), "{served:?}");
    let no_schema = run_serve(&world.database.url("no_such_schema"));
    assert_eq!(no_schema.status, Some(1), "{no_schema:?}");
}

fn missing_rights_are_named(world: &World) {
    let schema = world.own_table();
    let url = schema.create_user("SELECT, INSERT, UPDATE");
    let served = run_serve(&url);
    assert_eq!(served.status, Some(1), "{served:?}");
    let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON `{}`.`{TABLE}`", schema.name);
    assert_says(&served.err, &["rights", &grant, "DELETE command denied"]);
    schema.grant("DELETE");
    assert_eq!(run_check(&url).status, Some(0));
}

fn what_one_engine_does_worse_is_warned_of(world: &World) {
    if world.engine != Engine::MySql {
        let printed = run_check(&world.database.url(DATABASE)).out;
        let waits_long = world.engine == Engine::MariaDb(MariaDb::V10_5);
        assert_eq!(printed.contains("warning  lock waits"), waits_long, "{printed}");
        assert!(!printed.contains("group"), "{printed}");
        return;
    }
    let group = Group::start(1, &["--group-replication-consistency=EVENTUAL"]);
    let server = &group.nodes[0];
    migrate(&server.url(DATABASE));
    let printed = run_check(&server.url(DATABASE));
    assert_eq!(printed.status, Some(0), "{printed:?}");
    assert!(!printed.out.contains("lock waits"), "{printed:?}");
    let warns = |line: &&str| line.starts_with("warning  group ");
    let warning = printed.out.lines().find(warns).unwrap_or_else(|| panic!("{printed:?}"));
    let sql = &warning[warning.find("SET GLOBAL").unwrap()..];
    server.connect().query_drop(sql).unwrap();
    let printed = run_check(&server.url(DATABASE)).out;
    assert!(!printed.lines().any(|line| warns(&line)), "{printed}");
}

const ODD_OPTIONS: [&str; 7] = [
    "--log-bin",
    "--server-id=1",
    "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT",
    "--default-time-zone=+08:00",
    "--group-concat-max-len=16",
    // Only MariaDB has the first, only MySQL the second.
    "--loose-max-statement-time=0.5",
    "--loose-max-execution-time=1",
];

fn a_server_with_wrong_settings_is_refused_and_odd_modes_do_no_harm(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &ODD_OPTIONS);
    let url = server.url(DATABASE);
    let root = |sql: &str| server.connect().query_drop(sql).unwrap();
    let check = |flags: &[&str]| run(&[&["check", "--database-url", &url], flags].concat());
    let age_s = |session: &Session, now: &str| -> i64 {
        let sql =
            format!("SELECT TIMESTAMPDIFF(SECOND, timestamp, {now}) FROM {TABLE} WHERE {session}");
        server.connect().query_first(sql).unwrap().unwrap()
    };

    let printed = check(&[]);
    assert_eq!(printed.status, Some(1), "{printed:?}");
    assert_says(&printed.out, &["problem  time zone", "SESSION_LOCK_TIME_ZONE=+08:00"]);
    assert_eq!(run_serve(&url).status, Some(1));
    let printed = check(&["--time-zone", "+07:00"]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
    assert_says(&printed.out, &["warning  time zone"]);

    // The service writes the time of the configured zone, independently of the server's own zone.
    let other = Service::start(&url, &["--time-zone", "-03:00"]);
    let session = Session::new();
    other.hold(&session);
    let age = age_s(&session, "UTC_TIMESTAMP() - INTERVAL 3 HOUR");
    assert!((-1..30).contains(&age), "{age} s");
    let service = Service::start(&url, &["--time-zone", "+08:00"]);
    assert_quoted_ids_work(&service);
    // An old program writes local time, and reads our rows as local time.
    let session = Session::new();
    old_program::upsert(&mut server.connect(), &session, "NOW()");
    let held = service.acquire(&session, json!({}));
    held.assert_held();
    assert!(held.number("remaining_ms") <= 30_000);
    let ours = Session::new();
    service.hold(&ours);
    let age = age_s(&ours, "NOW()");
    assert!((-1..30).contains(&age), "{age} s");

    let printed = check(&["--time-zone", "+08:00"]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
    assert_says(&printed.out, &["innodb_flush_log_at_trx_commit = 1", "sync_binlog = 1"]);
    root("SET GLOBAL binlog_format = 'STATEMENT'");
    let printed = check(&["--time-zone", "+08:00"]);
    assert_eq!(printed.status, Some(1), "{printed:?}");
    assert_says(&printed.out, &["problem  binlog", "SET GLOBAL binlog_format = 'ROW'"]);
    // The SQL, exactly as printed, repairs each of these.
    for line in printed.out.lines() {
        if let Some((_, sql)) = line.split_once(": SET GLOBAL ") {
            root(&format!("SET GLOBAL {sql}"));
        }
    }
    root("SET GLOBAL time_zone = '+00:00'");
    let printed = check(&[]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
    assert_says(&printed.out, &["ok       binlog", "ok       durability", "ok       time zone"]);
    let service = Service::start(&url, &[]);
    service.hold(&Session::new());
    assert_lock_waits_end_as_lock_waits(&server, &service);
}

fn assert_lock_waits_end_as_lock_waits(server: &DatabaseServer, service: &Service) {
    let locked = Session::new();
    old_program::upsert(&mut server.connect(), &locked, "'garbage'");
    let mut other_program = server.connect();
    other_program.query_drop("BEGIN").unwrap();
    other_program.query_drop(format!("SELECT * FROM {TABLE} WHERE {locked} FOR UPDATE")).unwrap();
    let message = service.acquire(&locked, json!({})).assert_refused(503, "unavailable");
    assert!(message.contains("another program holds a database lock"), "{message}");
}

/// Ids with quotes and backslashes are stored unchanged in every SQL mode.
fn assert_quoted_ids_work(service: &Service) {
    for prospect in ["it's", "a\"b", "a\\b", "a\\'; -- ", "\\"] {
        let session = Session { prospect: prospect.trim().to_owned(), ..Session::new() };
        let owner_token = service.hold(&session);
        service.acquire(&session, json!({})).assert_held();
        assert_eq!(service.get(&session.path()).json["id_prospect"], json!(session.prospect));
        assert_eq!(service.release(&session, &owner_token).status, 200);
    }
}

fn a_server_that_takes_only_short_packets_is_found(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &["--max-allowed-packet=131072"]);
    let url = server.url(DATABASE);
    let refused = run_serve(&url);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert_says(&refused.err, &["problem  packets", "max_allowed_packet is 131072"]);
    let mut root = server.connect();
    root.query_drop("SET GLOBAL max_allowed_packet = 262144").unwrap();
    let service = Service::start(&url, &[]);
    service.wait_for_line("WARN  packets max_allowed_packet is 262144");
    service.hold_for(&Session::new(), "m");
    let warned = run_check(&url).out;
    let sql = &warned[warned.find("SET GLOBAL max_allowed_packet").unwrap()..];
    root.query_drop(sql.split(';').next().unwrap()).unwrap();
    assert!(!run_check(&url).out.contains("packets"));
}
