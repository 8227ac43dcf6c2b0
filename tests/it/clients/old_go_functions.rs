//! The Go client under the two functions of the old lock.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::worker::{CLIENTS, Worker, go_build};
use crate::world::{Session, World, tests};

tests![the_go_client_keeps_the_old_signatures];

/// A bot that calls the two functions of the old lock.
const OLD_BOT: &str = r#"package main

import "fmt"

var tryAcquire func(idProspect, idDevice string) (bool, error) = TryAcquireSession
var release func(idProspect, idDevice string) error = ReleaseSession

func main() {
	var idProspect, idDevice string
	fmt.Scanln(&idProspect, &idDevice)
	for {
		acquired, err := tryAcquire(idProspect, idDevice)
		fmt.Printf("[%t,%t]\n", acquired, err != nil)
		fmt.Scanln()
		fmt.Printf("%q\n", fmt.Sprint(release(idProspect, idDevice)))
		fmt.Scanln()
	}
}
"#;

fn the_go_client_keeps_the_old_signatures(world: &World) {
    const FILES: [&str; 3] = ["session_lock.go", "session_lock_http.go", "session_lock_old.go"];
    let folder = tempfile::tempdir().unwrap();
    for file in FILES {
        fs::copy(Path::new(CLIENTS).join(file), folder.path().join(file)).unwrap();
    }
    fs::write(folder.path().join("bot.go"), OLD_BOT).unwrap();
    go_build(folder.path(), "bot", &[&FILES[..], &["bot.go"]].concat());

    let session = Session::new();
    let url = world.service.http_url();
    let mut bot =
        Worker::spawn(Command::new(folder.path().join("bot")).env("SESSION_LOCK_URL", url));
    let ids = format!("{} {}", session.prospect, session.device);
    assert_eq!(bot.tell(&ids), json!([true, false]));
    world.service.acquire(&session, json!({})).assert_held();
    assert_eq!(bot.tell(""), "<nil>");
    assert_eq!(world.stored(&session), None);

    let owner_token = world.service.hold(&session);
    assert_eq!(bot.tell(""), json!([false, false]), "held is no error");
    assert_eq!(bot.tell(""), "session-lock: the lease is lost");
    assert_eq!(world.service.release(&session, &owner_token).status, 200);

    assert_eq!(bot.tell(""), json!([true, false]));
    world.age(&session, 600);
    let owner_token = world.service.hold(&session);
    assert_eq!(bot.tell(""), "session-lock: the lease is lost");
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
}
