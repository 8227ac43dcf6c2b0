//! Tables that change while the service runs.

use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    DatabaseServer, Service, Session, TABLE, World, assert_says, eventually, migrate, tests,
};

tests![
    a_table_that_becomes_unusable_is_named_until_it_is_repaired,
    a_renamed_index_costs_no_request,
    a_dropped_message_table_is_a_clear_400_for_those_who_need_it,
    changes_that_cause_no_error_are_noticed_within_a_minute,
    an_unusable_table_is_not_blamed_on_the_time_zone,
];

/// The interval between inspections, for changes that cause no error, and some time for a busy
/// machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(60 + 15);

fn a_table_that_becomes_unusable_is_named_until_it_is_repaired(world: &World) {
    let (schema, service) = world.own_service(&[]);
    for (change, repair, finding) in [
        ("RENAME TO gone", "", "there is no table"),
        (
            "CHANGE timestamp stamped_at VARCHAR(255) NOT NULL",
            "CHANGE stamped_at timestamp VARCHAR(255) NOT NULL",
            "no column timestamp",
        ),
        ("ADD stage INT NOT NULL", "DROP stage", "stage has no default"),
    ] {
        schema.sql(&format!("ALTER TABLE {TABLE} {change}"));
        let lines = service.log().len();
        service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
        for _ in 0..3 {
            let message = service.get("/readyz").assert_refused(503, "unavailable");
            assert_says(&message, &[finding]);
            service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
        }
        let log = service.log().split_off(lines);
        let warnings: Vec<_> = log.iter().filter(|line| line.contains("WARN")).collect();
        assert!(matches!(&warnings[..], [line] if line.contains(finding)), "{warnings:#?}");
        if repair.is_empty() {
            schema.sql(&format!("ALTER TABLE gone RENAME TO {TABLE}"));
        } else {
            schema.sql(&format!("ALTER TABLE {TABLE} {repair}"));
        }
        eventually(|| "it is ready", || (service.get("/readyz").status == 200).then_some(()));
        service.hold(&Session::new());
    }
}

fn a_renamed_index_costs_no_request(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let key = schema.rows::<String>(&format!(
        "SELECT DISTINCT index_name FROM information_schema.statistics \
         WHERE table_schema = DATABASE() AND table_name = '{TABLE}' AND index_name <> 'PRIMARY'"
    ));
    let session = Session::new();
    let owner_token = service.hold(&session);
    schema.sql(&format!("ALTER TABLE {TABLE} RENAME INDEX {} TO renamed", key[0]));
    service.acquire(&session, json!({})).assert_held();
    assert_eq!(service.release(&session, &owner_token).status, 200);
    assert_eq!(service.get("/readyz").status, 200);
    service.wait_for_line("the lock table has changed");
}

fn a_dropped_message_table_is_a_clear_400_for_those_who_need_it(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let session = Session::new();
    let owner_token = service.hold(&session);
    schema.sql("DROP TABLE session_lock_message");
    for refused in [
        service.acquire_for(&Session::new(), "m"),
        service.commit(&session, &owner_token, "m"),
        service.release_with(&session, &owner_token, "m"),
    ] {
        let message = refused.assert_refused(400, "invalid_request");
        assert_says(&message, &["message_id", "session_lock_message", "session-lock migrate"]);
    }
    assert_eq!(service.get("/readyz").status, 200);
    service.hold(&Session::new());
    migrate(&schema.url());
    let commits = || service.commit(&session, &owner_token, "m").status == 200;
    eventually(|| "messages are recorded again", || commits().then_some(()));
    assert_eq!(service.release(&session, &owner_token).status, 200);
}

/// All changes run at once, each with its own service, so that the test waits only once.
fn changes_that_cause_no_error_are_noticed_within_a_minute(world: &World) {
    let case_sensitive =
        format!("ALTER TABLE {TABLE} MODIFY id_prospect VARCHAR(255) COLLATE utf8mb4_bin NOT NULL");
    let trigger = format!(
        "CREATE TRIGGER harmless BEFORE UPDATE ON {TABLE} FOR EACH ROW SET NEW.id_device = NEW.id_device"
    );
    let another_key = format!("ALTER TABLE {TABLE} ADD UNIQUE KEY per_device (id_device)");
    let services: Vec<_> = [case_sensitive, trigger, another_key]
        .into_iter()
        .map(|change| {
            let (schema, service) = world.own_service(&[]);
            // The first inspection has ended; the next one comes after a minute.
            thread::sleep(Duration::from_secs(1));
            schema.sql(&change);
            service
        })
        .collect();
    let [case_sensitive, triggered, another_key] = &services[..] else { unreachable!() };
    let schema = world.own_table();
    let login = Service::start(&schema.create_user("ALL"), &[]);
    thread::sleep(Duration::from_secs(1));
    schema.change_password();
    let clock = ClockChange::start(world);
    let began = Instant::now();
    let wait_for = |service: &Service, part: &str| {
        while !service.log().iter().any(|line| line.contains(part)) {
            assert!(began.elapsed() < NOTICED_WITHIN, "{part:?} in {:#?}", service.log());
            thread::sleep(Duration::from_millis(100));
        }
    };
    for service in [case_sensitive, triggered] {
        wait_for(service, "the lock table has changed");
    }
    let [lower, mut upper] = [(); 2].map(|()| Session::new());
    upper.clone_from(&lower);
    upper.prospect.push('A');
    let lower = Session { prospect: format!("{}a", lower.prospect), ..lower };
    case_sensitive.hold(&lower);
    case_sensitive.hold(&upper);
    triggered.hold(&Session::new());
    wait_for(another_key, "per_device");
    another_key.get("/readyz").assert_refused(503, "unavailable");
    wait_for(&login, "refuses this login");
    login.hold(&Session::new());
    wait_for(&clock.service, "time zone");
    clock.check();
}

fn an_unusable_table_is_not_blamed_on_the_time_zone(world: &World) {
    let server = DatabaseServer::start_migrated(world.engine, &["--default-time-zone=+00:00"]);
    let service = Service::start(&server.url(DATABASE), &[]);
    let mut conn = server.connect();
    conn.query_drop("SET GLOBAL time_zone = '+02:00'").unwrap();
    conn.query_drop(format!("ALTER TABLE {DATABASE}.{TABLE} ADD stage INT NOT NULL")).unwrap();
    service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
    let message = service.get("/readyz").assert_refused(503, "unavailable");
    assert_says(&message, &["stage has no default"]);
    assert!(!message.contains("time zone"), "{message}");
}

/// A server whose time zone changes from the configured offset, as twice a year.
struct ClockChange {
    server: DatabaseServer,
    service: Service,
}

impl ClockChange {
    fn start(world: &World) -> Self {
        let server = DatabaseServer::start_migrated(world.engine, &["--default-time-zone=+02:00"]);
        let service = Service::start(&server.url(DATABASE), &["--time-zone", "+02:00"]);
        thread::sleep(Duration::from_secs(1));
        server.connect().query_drop("SET GLOBAL time_zone = '+01:00'").unwrap();
        let changed = Self { server, service };
        changed.check();
        changed
    }

    /// Rows that old programs write in the new zone hold their sessions.
    fn check(&self) {
        let session = Session::new();
        let Session { device, prospect } = &session;
        let mut old_program = self.server.connect();
        old_program
            .query_drop(format!(
                "INSERT INTO {DATABASE}.{TABLE} (id_device, id_prospect, timestamp) \
                 VALUES ('{device}', '{prospect}', NOW())"
            ))
            .unwrap();
        self.service.acquire(&session, json!({})).assert_held();
        assert_eq!(self.service.get(&session.path()).json["held"], true);
        assert!(self.service.get("/v1/locks").text.contains(prospect.as_str()));
        // The row is stale in both zones.
        old_program
            .query_drop(format!(
                "UPDATE {DATABASE}.{TABLE} SET timestamp = NOW() - INTERVAL 31 SECOND WHERE {session}"
            ))
            .unwrap();
        self.service.acquire(&session, json!({})).assert_granted("takeover");
        self.service.hold(&Session::new());
        let metrics = self.service.text("/metrics");
        let difference = "session_lock_time_zone_difference_seconds ";
        let difference = metrics.lines().find_map(|line| line.strip_prefix(difference));
        let logged = self.service.log().iter().any(|line| line.contains("time zone"));
        assert_eq!(difference, Some(if logged { "-3600" } else { "0" }));
    }
}
