//! Errors of the database: none is a grant.

use serde_json::json;

use crate::world::{Session, TABLE, World, eventually, tests};

tests![an_error_of_the_database_is_never_a_grant];

fn an_error_of_the_database_is_never_a_grant(world: &World) {
    let (schema, service) = world.own_service(&[]);
    // Migrations of a table in use: a renamed column (which once caused an incident), a missing
    // table, a column that is too short, a new column without a default.
    for (change, undo) in [
        (
            "CHANGE timestamp stamped_at VARCHAR(255) NOT NULL",
            "CHANGE stamped_at timestamp VARCHAR(255) NOT NULL",
        ),
        ("RENAME TO gone", ""),
        ("MODIFY timestamp VARCHAR(40) NOT NULL", "MODIFY timestamp VARCHAR(255) NOT NULL"),
        ("ADD stage INT NOT NULL", "DROP stage"),
    ] {
        schema.sql(&format!("ALTER TABLE {TABLE} {change}"));
        let session = Session::new();
        service.acquire(&session, json!({})).assert_refused(503, "unavailable");
        service.release(&session, "48210000000000000007").assert_refused_or_lost();
        if change == "RENAME TO gone" {
            service.get("/v1/locks").assert_refused(503, "unavailable");
        }
        if undo.is_empty() {
            schema.sql(&format!("ALTER TABLE gone RENAME TO {TABLE}"));
        } else {
            schema.sql(&format!("ALTER TABLE {TABLE} {undo}"));
        }
        eventually(
            || "the table is in use again",
            || (service.get("/readyz").status == 200).then_some(()),
        );
        let owner_token = service.hold(&session);
        assert_eq!(service.release(&session, &owner_token).status, 200);
    }
}
