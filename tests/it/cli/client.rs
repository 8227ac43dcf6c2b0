//! `session-lock list`, `session-lock release --force` and `session-lock health`.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clients::DEAD_PROXY;
use crate::world::{Printed, Service, Session, World, binary, free_port, run, tests, unix_socket};

tests![
    list_prints_a_table_for_people_and_json_for_programs,
    release_force_ends_a_lease_from_the_command_line,
    commands_say_when_there_is_no_server,
    commands_reach_a_server_on_a_unix_socket,
    commands_use_no_proxy,
    health_says_whether_the_service_answers_and_no_more,
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

fn health_says_whether_the_service_answers_and_no_more(world: &World) {
    let health = |variable, value: &str| -> Printed {
        Command::new(binary()).arg("health").env(variable, value).output().unwrap().into()
    };
    // The command needs neither an API token nor a database, and uses the address of the service.
    let no_database = format!("mysql://bot:s3cret@127.0.0.1:{}/bots", free_port());
    let arguments = ["serve", "--listen", "0.0.0.0:0", "--api-token", "s3cret", "--workers", "1"];
    let mut serve = Command::new(binary());
    let alive = Service::spawn(serve.args(arguments).args(["--database-url", &no_database]));
    let listen = format!("0.0.0.0:{}", alive.address.port());
    let (_folder, unix) = unix_socket();
    let _service = world.serve(&["--listen", &unix]);
    let url = world.service.http_url();
    for (variable, value) in [
        ("SESSION_LOCK_LISTEN", &listen),
        ("SESSION_LOCK_LISTEN", &unix),
        ("SESSION_LOCK_URL", &url),
    ] {
        let printed = health(variable, value);
        assert_eq!(
            (printed.status, &*printed.out, &*printed.err),
            (Some(0), "ok\n", ""),
            "{value}"
        );
    }
    // No server, another server, and a service that hangs.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let other_url = format!("http://{}", other.local_addr().unwrap());
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
    thread::spawn(move || other.accept().unwrap().0.write_all(not_found.as_bytes()));
    alive.signal("-STOP");
    let nobody = format!("127.0.0.1:{}", free_port());
    let started = Instant::now();
    for (variable, value) in [
        ("SESSION_LOCK_LISTEN", &nobody),
        ("SESSION_LOCK_URL", &other_url),
        ("SESSION_LOCK_LISTEN", &listen),
    ] {
        let printed = health(variable, value);
        assert_eq!((printed.status, printed.err.lines().count()), (Some(1), 1), "{printed:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(30), "container runtimes wait no longer");
}
