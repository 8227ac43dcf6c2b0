//! The Go client under the two functions of the old lock.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::worker::{CLIENTS, Worker, go_build};
use crate::world::{Session, World, tests};

tests![
    the_go_client_keeps_the_old_signatures,
    a_late_release_of_the_old_functions_spares_another_goroutines_lease,
];

/// A bot that calls the two functions of the old lock.
const OLD_BOT: &str = r#"package main

import "fmt"

var tryAcquire func(idProspect, idDevice string) (bool, error) = TryAcquireSession
var release func(idProspect, idDevice string) error = ReleaseSession

func main() {
	var idProspect, idDevice string
	fmt.Scanln(&idProspect, &idDevice)
	for command := ""; ; {
		if fmt.Scanln(&command); command == "acquire" {
			acquired, err := tryAcquire(idProspect, idDevice)
			fmt.Printf("[%t,%t]\n", acquired, err != nil)
		} else {
			fmt.Printf("%q\n", fmt.Sprint(release(idProspect, idDevice)))
		}
	}
}
"#;

const LOST: &str = "session-lock: the lease is lost";

fn start(world: &World, folder: &Path, session: &Session) -> Worker {
    const FILES: [&str; 3] = ["session_lock.go", "session_lock_http.go", "session_lock_old.go"];
    for file in FILES {
        fs::copy(Path::new(CLIENTS).join(file), folder.join(file)).unwrap();
    }
    fs::write(folder.join("bot.go"), OLD_BOT).unwrap();
    go_build(folder, "bot", &[&FILES[..], &["bot.go"]].concat());

    let url = world.service.http_url();
    let mut bot = Worker::spawn(Command::new(folder.join("bot")).env("SESSION_LOCK_URL", url));
    bot.send(&format!("{} {}", session.prospect, session.device));
    bot
}

fn the_go_client_keeps_the_old_signatures(world: &World) {
    let (folder, session) = (tempfile::tempdir().unwrap(), Session::new());
    let mut bot = start(world, folder.path(), &session);
    assert_eq!(bot.tell("acquire"), json!([true, false]));
    world.service.acquire(&session, json!({})).assert_held();
    assert_eq!(bot.tell("release"), "<nil>");
    assert_eq!(world.stored(&session), None);

    let owner_token = world.service.hold(&session);
    assert_eq!(bot.tell("acquire"), json!([false, false]), "held is no error");
    assert_eq!(bot.tell("release"), LOST);
    assert_eq!(world.service.release(&session, &owner_token).status, 200);

    assert_eq!(bot.tell("acquire"), json!([true, false]));
    world.age(&session, 600);
    let owner_token = world.service.hold(&session);
    assert_eq!(bot.tell("release"), LOST);
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
}

fn a_late_release_of_the_old_functions_spares_another_goroutines_lease(world: &World) {
    let (folder, session) = (tempfile::tempdir().unwrap(), Session::new());
    let mut bot = start(world, folder.path(), &session);
    assert_eq!(bot.tell("acquire"), json!([true, false]), "the late worker");
    world.age(&session, 600);
    assert_eq!(bot.tell("acquire"), json!([true, false]), "the next worker");
    assert_eq!(bot.tell("release"), LOST, "the late worker");
    world.service.acquire(&session, json!({})).assert_held();
    assert_eq!(bot.tell("release"), "<nil>", "the next worker");
    assert_eq!(world.stored(&session), None);
    assert_eq!(bot.tell("release"), LOST, "one more than there were leases");
}
