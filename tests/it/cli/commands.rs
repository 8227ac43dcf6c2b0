//! Settings, exit codes and output of the commands.

use std::process::Command;

use mysql::prelude::Queryable;
use session_lock::testing::DATABASE;

use crate::world::{Printed, World, assert_says, binary, migrate, run, tests};

tests![
    a_wrong_setting_is_one_line_and_status_2,
    output_that_nobody_reads_is_no_failure,
    migrate_creates_the_table_once_and_alters_nothing,
];

fn a_wrong_setting_is_one_line_and_status_2(world: &World) {
    let url = world.database.url(DATABASE);
    for wrong in [
        &["serve", "--database-url", "nonsense"][..],
        &["serve"],
        &["serve", "--database-url", &url, "--workers", "many"],
        &["migrate", "--database-url", &url, "--table", "Session_lock_message"],
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
    let mut wrong_level = Command::new(binary());
    wrong_level.args(["serve", "--database-url", &url]).env("RUST_LOG", "session-lock=debug");
    let printed = Printed::from(wrong_level.output().unwrap());
    assert_eq!(printed.status, Some(2), "{printed:?}");
    assert_says(&printed.err, &["RUST_LOG", "info"]);
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

fn output_that_nobody_reads_is_no_failure(world: &World) {
    let schema = world.own_table();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut check = Command::new(binary());
    check.args(["check", "--database-url", &schema.url()]).stdout(writer);
    let printed = Printed::from(check.output().unwrap());
    assert_eq!((printed.status, &*printed.err), (Some(0), ""), "{printed:?}");
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
