//! What `migrate` creates, and what it does when it may not.

use crate::world::{World, tests};

tests![todo];

fn todo(_: &World) {}
