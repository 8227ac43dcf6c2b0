//! Tables that look right and refuse leases or records: `check` tries to write both.

use crate::world::{
    Engine, MESSAGE_TABLE, Schema, Service, Session, TABLE, World, assert_says, run_check, tests,
};

tests![
    a_lock_table_that_refuses_a_lease_is_warned_of,
    a_message_table_that_refuses_a_record_is_warned_of,
    a_character_set_that_a_statement_cannot_use_needs_no_grant,
    a_test_write_leaves_nothing_behind,
];

/// A lock table with these statements run on it.
fn changed<'a>(world: &'a World, statements: &[&str]) -> Schema<'a> {
    let schema = world.own_table();
    for statement in statements {
        schema.sql(&statement.replace("LOCKS", TABLE));
    }
    schema
}

/// `check` has exactly this warning about what it tried.
fn assert_warns(schema: &Schema, says: &str) {
    let checked = run_check(&schema.url());
    assert_eq!(checked.status, Some(0), "{checked:?}");
    let tried: Vec<_> =
        checked.out.lines().filter(|line| line.contains("  test write  ")).collect();
    assert_eq!(tried.len(), 1, "{checked:?}");
    assert_says(tried[0], &["warning  test write   a made-up session's lease was refused", says]);
    let rows: Vec<u64> = schema.rows(&format!("SELECT id_sessionX FROM {TABLE}"));
    let records: Vec<String> = schema.rows(&format!("SELECT id_device FROM {MESSAGE_TABLE}"));
    assert!(rows.is_empty() && records.is_empty(), "{rows:?} {records:?}");
}

fn a_lock_table_that_refuses_a_lease_is_warned_of(world: &World) {
    let mut cases = vec![
        (
            &[
                "ALTER TABLE LOCKS ADD note VARCHAR(9) NOT NULL DEFAULT '', ADD CONSTRAINT noted CHECK (note <> '')",
            ][..],
            "noted",
        ),
        (
            &["ALTER TABLE LOCKS ADD number INT GENERATED ALWAYS AS (timestamp + 0) STORED"],
            "incorrect",
        ),
        (
            &[
                "CREATE TRIGGER audited AFTER INSERT ON LOCKS FOR EACH ROW INSERT INTO gone VALUES (1)",
            ],
            "gone",
        ),
        (
            &[
                "CREATE TRIGGER cut BEFORE INSERT ON LOCKS FOR EACH ROW SET NEW.timestamp = LEFT(NEW.timestamp, 19)",
            ],
            "not in its row",
        ),
        (
            &[
                "CREATE TRIGGER aged BEFORE UPDATE ON LOCKS FOR EACH ROW SET NEW.timestamp = CONCAT('2020', SUBSTRING(NEW.timestamp, 5))",
            ],
            "not in its row",
        ),
        (
            &[
                "CREATE TABLE tenants (id INT PRIMARY KEY)",
                "ALTER TABLE LOCKS ADD tenant INT NOT NULL DEFAULT 1, ADD CONSTRAINT known FOREIGN KEY (tenant) REFERENCES tenants (id)",
            ],
            "known",
        ),
    ];
    if world.engine == Engine::MySql {
        cases.push((&["ALTER TABLE LOCKS ADD KEY dated ((CAST(timestamp AS SIGNED)))"], "dated"));
    }
    for (statements, says) in cases {
        let schema = changed(world, statements);
        assert_warns(&schema, says);
    }
    // Rights on single columns.
    let schema = world.own_table();
    let url = schema.create_user("SELECT, DELETE");
    schema.sql(&format!(
        "GRANT INSERT (id_prospect, id_device, timestamp), UPDATE (timestamp) ON {TABLE} TO bot_{}@'%'",
        schema.name
    ));
    let checked = run_check(&url);
    assert_eq!(checked.status, Some(1), "{checked:?}");
    assert_says(&checked.out, &["problem  rights       this user lacks rights", "GRANT SELECT"]);
}

fn a_message_table_that_refuses_a_record_is_warned_of(world: &World) {
    for (statement, says) in [
        ("ALTER TABLE MESSAGES ADD CONSTRAINT dated CHECK (committed_us > 5)", "dated"),
        (
            "CREATE TRIGGER t BEFORE INSERT ON MESSAGES FOR EACH ROW SET NEW.committed_us = 9",
            "not in its row",
        ),
        (
            "CREATE TRIGGER t BEFORE INSERT ON MESSAGES FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'denied'",
            "denied",
        ),
    ] {
        let schema = world.own_table();
        schema.sql(&statement.replace("MESSAGES", MESSAGE_TABLE));
        let checked = run_check(&schema.url());
        assert_eq!(checked.status, Some(0), "{checked:?}");
        let says = [
            "ok       test write",
            "warning  test write   a made-up session's record was refused",
            says,
        ];
        assert_says(&checked.out, &says);
        let records: Vec<String> = schema.rows(&format!("SELECT id_device FROM {MESSAGE_TABLE}"));
        assert!(records.is_empty(), "{records:?}");
    }
}

fn a_character_set_that_a_statement_cannot_use_needs_no_grant(world: &World) {
    let schema = changed(
        world,
        &[
            "ALTER TABLE LOCKS CONVERT TO CHARACTER SET swe7, MODIFY timestamp VARCHAR(255) CHARACTER SET swe7 NOT NULL",
        ],
    );
    let checked = run_check(&schema.url());
    assert!(!checked.out.contains("GRANT"), "{checked:?}");
    match world.engine {
        Engine::MariaDb(_) => assert_says(&checked.out, &["warning  test write", "Illegal mix"]),
        Engine::MySql => drop(Service::start(&schema.url(), &[]).hold(&Session::new())),
    }
}

fn a_test_write_leaves_nothing_behind(world: &World) {
    for id in [None, Some("-7")] {
        let schema = world.own_table();
        if let Some(id) = id {
            schema.sql(&format!(
                "INSERT INTO {TABLE} VALUES ({id}, 'p', 'd', '2025-10-14 09:00:00')"
            ));
        }
        let show = || {
            let definition: (String, String) =
                schema.rows(&format!("SHOW CREATE TABLE {TABLE}")).pop().unwrap();
            let rows: Vec<(i64, String)> =
                schema.rows(&format!("SELECT id_sessionX, timestamp FROM {TABLE}"));
            let messages: Vec<String> =
                schema.rows(&format!("SELECT id_device FROM {MESSAGE_TABLE}"));
            (definition, rows, messages)
        };
        let before = show();
        let checked = run_check(&schema.url());
        assert_eq!(checked.status, Some(0), "{checked:?}");
        assert_says(&checked.out, &["ok       test write   a lease can be acquired"]);
        assert_eq!(show(), before);
        // The first id that another program gets.
        schema.store(&Session::new(), "NOW()");
        assert_eq!(schema.rows::<i64>(&format!("SELECT MAX(id_sessionX) FROM {TABLE}")), [1]);
    }
}
