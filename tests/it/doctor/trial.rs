//! Tables that look right and refuse leases or records: `check` tries to write both.

use crate::world::{
    Engine, MESSAGE_TABLE, Schema, Service, Session, TABLE, World, assert_says, run_check,
    run_serve, tests,
};

tests![
    a_table_that_refuses_every_lease_is_a_problem,
    a_table_that_may_refuse_only_some_sessions_is_a_warning,
    a_character_set_that_a_statement_cannot_use_needs_no_grant,
    a_trial_leaves_nothing_behind,
];

/// A lock table with these statements run on it.
fn changed<'a>(world: &'a World, statements: &[&str]) -> Schema<'a> {
    let schema = world.own_table();
    for statement in statements {
        schema.sql(&statement.replace("LOCKS", TABLE));
    }
    schema
}

fn assert_refused(url: &str, says: &str) {
    let checked = run_check(url);
    assert_eq!(checked.status, Some(1), "{checked:?}");
    let problems: Vec<_> = checked.out.lines().filter(|line| line.starts_with("problem")).collect();
    assert_eq!(problems.len(), 1, "{checked:?}");
    assert_says(problems[0], &["problem  leases       no lease can be written", says]);
    let served = run_serve(url);
    assert_eq!(served.status, Some(1), "{served:?}");
    assert_says(&served.err, &[problems[0]]);
}

fn a_table_that_refuses_every_lease_is_a_problem(world: &World) {
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
            "a trigger may change it",
        ),
        (
            &[
                "CREATE TRIGGER aged BEFORE UPDATE ON LOCKS FOR EACH ROW SET NEW.timestamp = CONCAT('2020', SUBSTRING(NEW.timestamp, 5))",
            ],
            "a trigger may change it",
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
        assert_refused(&schema.url(), says);
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

fn a_table_that_may_refuse_only_some_sessions_is_a_warning(world: &World) {
    for statement in [
        "ALTER TABLE LOCKS ADD CONSTRAINT numbered CHECK (id_device REGEXP '^[0-9]+$')",
        "CREATE TRIGGER numbered BEFORE INSERT ON LOCKS FOR EACH ROW \
         IF NEW.id_device NOT REGEXP '^[0-9]+$' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'numbered'; END IF",
    ] {
        let schema = changed(world, &[statement]);
        let checked = run_check(&schema.url());
        assert_eq!(checked.status, Some(0), "{checked:?}");
        let says = ["warning  leases       a lease of a made-up session was refused", "numbered"];
        assert_says(&checked.out, &says);
        let session = Session { device: "60123".to_owned(), ..Session::new() };
        Service::start(&schema.url(), &[]).hold(&session);
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
        Engine::MariaDb(_) => assert_eq!(checked.status, Some(1), "{checked:?}"),
        Engine::MySql => {
            Service::start(&schema.url(), &[]).hold(&Session::new());
        }
    }
}

fn a_trial_leaves_nothing_behind(world: &World) {
    for id in [None, Some("0")] {
        let schema = world.own_table();
        if let Some(id) = id {
            schema.sql(&format!(
                "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; INSERT INTO {TABLE} VALUES ({id}, 'p', 'd', '2025-10-14 09:00:00')"
            ));
        }
        let show = || {
            let definition: (String, String) =
                schema.rows(&format!("SHOW CREATE TABLE {TABLE}")).pop().unwrap();
            let rows: Vec<(u64, String)> =
                schema.rows(&format!("SELECT id_sessionX, timestamp FROM {TABLE}"));
            let messages: Vec<String> =
                schema.rows(&format!("SELECT id_device FROM {MESSAGE_TABLE}"));
            (definition, rows, messages)
        };
        let before = show();
        let checked = run_check(&schema.url());
        assert_eq!(checked.status, Some(0), "{checked:?}");
        assert!(!checked.out.contains("leases  "), "{checked:?}");
        assert_eq!(show(), before);
        // The first id that another program gets.
        schema.store(&Session::new(), "NOW()");
        assert_eq!(schema.rows::<u64>(&format!("SELECT MAX(id_sessionX) FROM {TABLE}")), [1]);
    }
}
