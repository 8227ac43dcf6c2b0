//! Lock tables that are unusable.

use session_lock::testing::DATABASE;

use crate::world::{
    DatabaseServer, Engine, Service, Session, TABLE, World, assert_says, run, run_check, run_serve,
    tests,
};

tests![
    a_missing_table_is_named,
    a_missing_column_is_named,
    a_timestamp_that_cannot_hold_a_lease_is_refused,
    a_missing_or_additional_unique_key_is_refused,
    another_engine_than_innodb_is_refused,
    a_column_without_a_default_is_refused,
    table_names_compare_as_the_server_compares_them,
    a_user_who_may_not_see_the_definition_gets_the_findings,
];

const COLUMNS: &str = "id_sessionX INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL";

/// Runs `serve` and `check` on a table of this definition, in which both must find the same single
/// problem. Returns its line.
fn problem(world: &World, definition: Option<&str>) -> String {
    let schema = world.schema();
    if let Some(definition) = definition {
        schema.sql(&format!("CREATE TABLE {TABLE} ({definition}"));
    }
    let served = run_serve(&schema.url());
    let checked = run_check(&schema.url());
    assert_eq!((served.status, checked.status), (Some(1), Some(1)), "{served:?} {checked:?}");
    let problems = |text: &str| {
        text.lines().filter(|l| l.starts_with("problem")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(problems(&served.err), problems(&checked.out), "both say the same");
    let lines = problems(&served.err);
    assert_eq!(lines.len(), 1, "{served:?}");
    lines[0].clone()
}

fn a_missing_table_is_named(world: &World) {
    assert_says(&problem(world, None), &[TABLE, "migrate", "SESSION_LOCK_TABLE"]);
}

fn a_missing_column_is_named(world: &World) {
    // As in an incident in production, where a program named columns that the table did not have.
    let renamed = "id_sessionX INT AUTO_INCREMENT PRIMARY KEY, phone_number VARCHAR(255) NOT NULL DEFAULT '', \
                   id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL)";
    let schema = world.schema();
    schema.sql(&format!("CREATE TABLE {TABLE} ({renamed}"));
    let served = run_serve(&schema.url());
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
            &problem(world, Some(&definition)),
            &["timestamp", "MODIFY `timestamp` VARCHAR(255)"],
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
        problem(world, Some(&format!("{COLUMNS}, timestamp VARCHAR(255) NOT NULL{keys})")))
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
    assert_eq!(run_serve(&schema.url()).status, Some(1));
}

fn another_engine_than_innodb_is_refused(world: &World) {
    // latin1, because a key of utf8mb4 columns is too long for MyISAM.
    let definition = format!(
        "{COLUMNS}, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)) ENGINE=MyISAM CHARSET=latin1"
    );
    assert_says(&problem(world, Some(&definition)), &["MyISAM", "ENGINE = InnoDB"]);
}

fn a_column_without_a_default_is_refused(world: &World) {
    let definition = format!(
        "{COLUMNS}, timestamp VARCHAR(255) NOT NULL, stage INT NOT NULL, UNIQUE KEY u (id_prospect, id_device))"
    );
    assert_says(&problem(world, Some(&definition)), &["stage", "SET DEFAULT"]);
}

fn table_names_compare_as_the_server_compares_them(world: &World) {
    let upper_case = TABLE.to_uppercase();
    let in_upper_case =
        |command: &str, url: &str| run(&[command, "--database-url", url, "--table", &upper_case]);
    let schema = world.own_table();
    let missing = in_upper_case("check", &schema.url());
    assert_says(&missing.out, &[&format!("there is no table {upper_case}")]);
    // In MySQL, this option can only be set when the server is installed.
    if matches!(world.engine, Engine::MariaDb(_)) {
        let options = ["--lower-case-table-names=1"];
        let server = DatabaseServer::start_migrated(world.engine, &options);
        let url = server.url(DATABASE);
        for command in ["check", "migrate"] {
            let printed = in_upper_case(command, &url);
            assert_eq!(printed.status, Some(0), "{printed:?}");
        }
        let service = Service::start(&url, &["--table", &upper_case]);
        service.hold(&Session::new());
    }
}

fn a_user_who_may_not_see_the_definition_gets_the_findings(world: &World) {
    let schema = world.schema();
    schema.sql(&format!(
        "CREATE TABLE {TABLE} ({COLUMNS}, timestamp DATETIME NOT NULL, stage INT NOT NULL, UNIQUE KEY u (id_prospect(9), id_device))"
    ));
    let url = schema.create_user("INSERT");
    let printed = run_check(&url);
    assert_eq!(printed.status, Some(1), "{printed:?}");
    assert_says(
        &printed.out,
        &["timestamp is datetime", "stage has no default", "only the beginnings"],
    );
}
