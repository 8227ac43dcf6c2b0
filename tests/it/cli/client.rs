//! `session-lock list` and `session-lock release --force`.

use std::process::Command;

use serde_json::{Value, json};

use crate::clients::DEAD_PROXY;
use crate::world::{Printed, Session, World, binary, free_port, run, tests, unix_socket};

tests![
    list_prints_a_table_for_people_and_json_for_programs,
    release_force_ends_a_lease_from_the_command_line,
    commands_say_when_there_is_no_server,
    commands_reach_a_server_on_a_unix_socket,
    commands_use_no_proxy,
];

fn list_prints_a_table_for_people_and_json_for_programs(world: &World) {
    let (_schema, service) = world.own_service(&[]);
    let session = Session::new();
    let owner_token = service.hold(&session);
    service.hold(&Session::new());
    let url = service.http_url();
    let printed = run(&["list", "--url", &url]);
    assert_eq!((printed.status, printed.out.lines().count()), (Some(0), 3), "{printed:?}");
    assert!(printed.out.contains(&session.prospect) && !printed.out.contains(&owner_token));
    let printed = run(&["list", "--json", "--device", &session.device, "--url", &url]);
    let locks: Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(locks.as_array().unwrap().len(), 1);
    assert_eq!(locks[0]["id_prospect"], json!(session.prospect));
}

fn release_force_ends_a_lease_from_the_command_line(world: &World) {
    let session = Session::new();
    let fencing_token = world.service.acquire(&session, json!({})).number("fencing_token");
    let url = world.service.http_url();
    let release = |more: &[&str]| {
        let Session { device, prospect } = &session;
        let ids = ["release", "--url", &url, "--device", device, "--prospect", prospect];
        run(&[&ids, more].concat())
    };
    assert_eq!(release(&[]).status, Some(2), "without --force");
    assert_eq!(release(&["--force", "--fencing-token", "1"]).status, Some(1));
    assert_eq!(
        release(&["--force", "--fencing-token", &fencing_token.to_string()]).status,
        Some(0)
    );
    assert_eq!(world.stored(&session), None);
    let line = world
        .service
        .wait_for_line(&format!("released by force id_prospect=\"{}\"", session.prospect));
    assert!(
        line.contains("by 127.0.0.1:") && line.contains(&format!("fencing_token={fencing_token}")),
        "{line}"
    );
    assert_eq!(release(&["--force"]).status, Some(1));
}

fn commands_say_when_there_is_no_server(world: &World) {
    let closed = format!("http://127.0.0.1:{}", free_port());
    for command in [
        &["list", "--url", &closed][..],
        &["release", "--force", "--device", "d", "--prospect", "p", "--url", &closed],
    ] {
        let printed = run(command);
        assert_eq!(printed.status, Some(69), "{printed:?}");
        assert!(printed.err.contains("no session-lock server at"), "{printed:?}");
    }
    let service = world.serve(&["--api-token", "s3cret"]);
    let url = service.http_url();
    let printed = run(&["list", "--url", &url]);
    assert_eq!(printed.status, Some(2), "{printed:?}");
    assert!(printed.err.contains("SESSION_LOCK_API_TOKEN"), "{printed:?}");
    assert_eq!(run(&["list", "--url", &url, "--api-token", "s3cret"]).status, Some(0));
}

fn commands_reach_a_server_on_a_unix_socket(world: &World) {
    let (_folder, listen) = unix_socket();
    let _service = world.serve(&["--listen", &listen]);
    let Session { device, prospect } = Session::new();
    let ids = ["--url", &listen, "--device", &device, "--prospect", &prospect];
    let listing = ["--", "sh", "-c", "\"$0\" list --url \"$1\" --device \"$2\" --json"];
    let binary = binary();
    let own = [binary.as_str(), &listen, &device];
    let ran = run(&[&["run"], &ids[..], &listing[..], &own[..]].concat());
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.out.contains(&prospect), "{ran:?}");
    let released = run(&[&["release", "--force"], &ids[..]].concat());
    assert_eq!(released.status, Some(1), "{released:?}");
    assert!(released.err.contains("not held"), "{released:?}");
    let no_server = run(&["list", "--url", "unix:/nowhere/lock.sock"]);
    assert_eq!(no_server.status, Some(69), "{no_server:?}");
    assert!(no_server.err.contains("unix:/nowhere/lock.sock"), "{no_server:?}");
}

fn commands_use_no_proxy(world: &World) {
    let (_folder, listen) = unix_socket();
    let _service = world.serve(&["--listen", &listen]);
    for url in [&world.service.http_url(), &listen] {
        let Session { device, prospect } = &Session::new();
        let server = ["--url", url, "--device", device];
        let conversation = ["--prospect", prospect];
        for (command, status) in [
            ([&["list"], &server[..]].concat(), 0),
            ([&["run"], &server[..], &conversation, &["--", "sh", "-c", "exit 7"]].concat(), 7),
            ([&["release", "--force"], &server[..], &conversation].concat(), 1),
        ] {
            let output = Command::new(binary()).args(&command).envs(DEAD_PROXY).output().unwrap();
            let printed = Printed::from(output);
            assert_eq!(printed.status, Some(status), "{command:?}: {printed:?}");
        }
    }
}
