//! Which ids are the same session.

use serde_json::json;

use crate::world::{Session, World, tests};

tests![letter_case_does_not_distinguish_sessions, other_devices_and_prospects_are_other_sessions,];

fn letter_case_does_not_distinguish_sessions(world: &World) {
    let session = Session::new();
    let owner_token = world.service.hold(&session);
    let uppercase = Session { device: session.device.to_uppercase(), prospect: session.prospect };
    world.service.acquire(&uppercase, json!({})).assert_held();
    world.service.release(&uppercase, &owner_token).assert(200, &json!({"released": true}));
}

fn other_devices_and_prospects_are_other_sessions(world: &World) {
    let (one, two) = (Session::new(), Session::new());
    world.service.hold(&one);
    world.service.hold(&Session { device: one.device.clone(), prospect: two.prospect.clone() });
    world.service.hold(&Session { device: two.device.clone(), prospect: one.prospect.clone() });
    let swapped = Session { device: one.prospect, prospect: one.device };
    world.service.hold(&swapped);
}
