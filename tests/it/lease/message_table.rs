//! The message table is missing, or has another shape.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::world::{
    MESSAGE_TABLE, Schema, Service, Session, World, eventually, migrate, run_check, tests,
};

tests![
    without_its_table_messages_are_refused_and_leases_work,
    a_message_table_that_does_not_take_every_record_is_refused,
];

/// A schema without the message table.
fn with_lock_table_only(world: &World) -> Schema<'_> {
    let schema = world.own_table();
    schema.sql(&format!("DROP TABLE {MESSAGE_TABLE}"));
    schema
}

fn without_its_table_messages_are_refused_and_leases_work(world: &World) {
    let schema = with_lock_table_only(world);
    let service = Service::start(&schema.url(), &[]);
    service.wait_for_line("WARN  messages");
    let session = Session::new();
    let token = service.hold(&session);
    let commit = json!({"owner_token": token, "message_id": "m"});
    for (path, fields) in [
        ("/v1/acquire", json!({"message_id": "m"})),
        ("/v1/commit", commit.clone()),
        ("/v1/release", commit),
    ] {
        let message =
            service.post(path, session.with(fields)).assert_refused(400, "invalid_request");
        assert!(message.contains("session-lock migrate"), "{message}");
    }
    assert_eq!(service.renew(&session, &token, 30_000).status, 200);
    assert_eq!(service.release(&session, &token).status, 200);
    let checked = run_check(&schema.url());
    assert_eq!(checked.status, Some(0));
    assert!(checked.out.contains("warning  messages"), "{checked:?}");
    // The service detects a new table even after a second without one.
    thread::sleep(Duration::from_millis(1_100));
    migrate(&schema.url());
    let granted = eventually(
        || "messages are accepted",
        || Some(service.acquire_for(&session, "m")).filter(|reply| reply.status != 400),
    );
    granted.assert_granted("new");
}

fn a_message_table_that_does_not_take_every_record_is_refused(world: &World) {
    for change in [
        "ALTER TABLE MESSAGES MODIFY id_device VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
        "ALTER TABLE MESSAGES DROP PRIMARY KEY",
        "ALTER TABLE MESSAGES DROP COLUMN result",
        "ALTER TABLE MESSAGES DROP KEY committed_us",
        "ALTER TABLE MESSAGES MODIFY id_prospect VARCHAR(99) NOT NULL",
        "ALTER TABLE MESSAGES MODIFY result VARBINARY(512) NOT NULL",
        "ALTER TABLE MESSAGES ADD note INT NOT NULL",
    ] {
        let schema = with_lock_table_only(world);
        migrate(&schema.url());
        schema.sql(&change.replace("MESSAGES", MESSAGE_TABLE));
        let checked = run_check(&schema.url());
        assert!(checked.out.contains("warning  messages"), "{change}: {checked:?}");
        let service = Service::start(&schema.url(), &[]);
        service.acquire_for(&Session::new(), "m").assert_refused(400, "invalid_request");
        service.hold(&Session::new());
        let records: Vec<String> = schema.rows(&format!("SELECT id_device FROM {MESSAGE_TABLE}"));
        assert!(records.is_empty(), "{change}: {records:?}");
    }
}
