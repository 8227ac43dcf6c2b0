//! Triggers on the lock table.

use serde_json::json;

use crate::db::proxies::assert_repeats_keep_the_lease;
use crate::world::{Service, Session, TABLE, World, tests};

tests![
    a_lease_that_a_trigger_changes_is_granted_to_nobody,
    a_trigger_that_changes_nothing_changes_no_answer,
    a_trigger_that_changes_another_column_changes_no_answer,
    triggers_that_keep_an_audit_change_no_answer,
];

fn a_lease_that_a_trigger_changes_is_granted_to_nobody(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!(
        "CREATE TRIGGER aged BEFORE UPDATE ON {TABLE} FOR EACH ROW \
         SET NEW.timestamp = CONCAT('2020', SUBSTRING(NEW.timestamp, 5))"
    ));
    let service = Service::start(&schema.url(), &[]);
    for _ in 0..2 {
        let refused = service.acquire(&Session::new(), json!({}));
        refused.assert_refused(503, "unavailable");
    }
}

fn a_trigger_that_changes_nothing_changes_no_answer(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!(
        "CREATE TRIGGER harmless BEFORE UPDATE ON {TABLE} FOR EACH ROW SET NEW.id_device = NEW.id_device"
    ));
    let service = Service::start(&schema.url(), &[]);
    for _ in 0..2 {
        let fields = json!({"owner_token": "48210000000000000007"});
        let session = Session::new();
        let granted = service.acquire(&session, fields.clone());
        granted.assert_granted("new");
        let again = service.acquire(&session, fields);
        again.assert_granted("again");
        service.acquire(&Session::new(), json!({})).assert_granted("new");
    }
}

fn a_trigger_that_changes_another_column_changes_no_answer(world: &World) {
    let schema = world.own_table();
    schema.sql(&format!("ALTER TABLE {TABLE} ADD COLUMN writes INT NOT NULL DEFAULT 0"));
    schema.sql(&format!(
        "CREATE TRIGGER counting BEFORE UPDATE ON {TABLE} FOR EACH ROW SET NEW.writes = OLD.writes + 1"
    ));
    assert_repeats_keep_the_lease(&[(); 2].map(|()| Service::start(&schema.url(), &[])));
}

fn triggers_that_keep_an_audit_change_no_answer(world: &World) {
    let schema = world.own_table();
    schema.sql("CREATE TABLE audit (id INT AUTO_INCREMENT PRIMARY KEY, event VARCHAR(10))");
    for event in ["INSERT", "UPDATE", "DELETE"] {
        schema.sql(&format!(
            "CREATE TRIGGER audit_{event} AFTER {event} ON {TABLE} FOR EACH ROW \
             INSERT INTO audit (event) VALUES ('{event}')"
        ));
    }
    let services = [(); 2].map(|()| Service::start(&schema.url(), &[]));
    assert_repeats_keep_the_lease(&services);
    // A duplicate leaves no lease behind.
    let (session, message_id) = (Session::new(), "wamid.1");
    let owner_token = services[0].hold_for(&session, message_id);
    services[0].release_with(&session, &owner_token, message_id);
    services[1].acquire_for(&session, message_id).assert_duplicate(message_id);
    services[1].acquire(&session, json!({})).assert_granted("new");
}
