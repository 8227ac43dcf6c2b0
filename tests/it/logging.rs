//! Log lines.

use std::process::Command;

use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{Service, Session, World, binary, tests};

tests![each_outcome_has_its_log_line_and_no_line_has_a_token, what_ends_in_503_is_logged_at_debug,];

/// A service with the log level `debug`.
fn serve_at_debug(world: &World, flags: &[&str]) -> Service {
    let mut command = Command::new(binary());
    command.args(["serve", "--database-url", &world.database.url(DATABASE)]).args(flags);
    let service = Service::spawn(command.env("RUST_LOG", "debug"));
    service.wait_until_ready();
    service
}

fn each_outcome_has_its_log_line_and_no_line_has_a_token(world: &World) {
    let service = serve_at_debug(world, &["--api-token", "s3cret-t0ken"]);
    let refused = service.get("/v1/locks/a/b");
    refused.assert_refused(401, "unauthorized");

    let session = Session::new();
    let ids = format!("id_prospect=\"{}\" id_device=\"{}\"", session.prospect, session.device);
    let first = world.service.hold(&session);
    world.service.wait_for_line(&format!("INFO  Session lock acquired successfully {ids}"));
    world.service.acquire(&session, json!({})).assert_held();
    world.service.wait_for_line(&format!("INFO  Session lock held, duplicate rejected {ids}"));
    world.age(&session, 31);
    let second = world.service.hold(&session);
    world
        .service
        .wait_for_line(&format!("INFO  Session lock taken over from a stale holder {ids}"));
    assert_eq!(world.service.release(&session, &second).status, 200);
    world
        .service
        .wait_for_line(&format!("INFO  Session lock released and cleaned up successfully {ids}"));

    for line in world.service.log().iter().chain(&service.log()) {
        for secret in [&first, &second, "s3cret-t0ken", "root@"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

fn what_ends_in_503_is_logged_at_debug(world: &World) {
    let session = Session::new();
    world.store(&session, "garbage");
    let _other_program = world.lock_row(&session);
    let service = serve_at_debug(world, &[]);
    service.acquire(&session, json!({})).assert_refused(503, "unavailable");
    service.wait_for_line(&format!(
        "DEBUG Session lock not served id_prospect=\"{}\" id_device=\"{}\": another program",
        session.prospect, session.device
    ));
}
