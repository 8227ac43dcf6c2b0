//! Triggers on the lock table.

use serde_json::json;

use crate::world::{Service, Session, TABLE, World, tests};

tests![
    a_lease_that_a_trigger_changes_is_granted_to_nobody,
    a_trigger_that_changes_nothing_changes_no_answer,
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
