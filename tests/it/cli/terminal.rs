//! `session-lock run` in a terminal, and commands that are stopped.

use std::io::{Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::run::{Running, process_state};
use crate::world::{
    KillOnDrop, Session, TABLE, World, assert_says, binary, eventually, signal, tests,
};

tests![
    a_command_that_reads_the_terminal_gets_it_until_it_ends,
    a_command_stopped_from_the_terminal_keeps_its_lease_and_can_be_ended,
    a_stopped_command_keeps_its_lease,
    a_stopped_command_is_stopped_for_good_when_its_lease_is_lost,
];

/// `session-lock run` in a shell with its own terminal.
struct Terminal {
    _script: KillOnDrop,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Runs a command under a lease, and then more commands in the same shell.
    fn start(world: &World, session: &Session, command: &str, more: &str) -> Self {
        let Session { device, prospect } = session;
        let line = format!(
            "{} run --ttl 6s --url {} --device {device} --prospect {prospect} -- {command}; {more}",
            binary(),
            world.service.http_url()
        );
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("SHELL", "/bin/sh");
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keyboard, mut output) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { _script: KillOnDrop(script), keyboard, screen }
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn wait_for(&self, text: &str) {
        let screen = || self.screen.lock().unwrap().clone();
        let what = || format!("{text:?} on {:?}", screen());
        eventually(what, || screen().contains(text).then_some(()));
    }
}

fn a_command_that_reads_the_terminal_gets_it_until_it_ends(world: &World) {
    let session = Session::new();
    let command = r#"sh -c 'echo asks; read -r line; echo "command: $line."; exit 7'"#;
    let more = r#"echo "status: $?."; read -r line; echo "shell: $line.""#;
    let mut terminal = Terminal::start(world, &session, command, more);
    terminal.wait_for("asks");
    terminal.type_in("first\n");
    terminal.wait_for("command: first.");
    terminal.wait_for("status: 7.");
    terminal.type_in("second\n");
    terminal.wait_for("shell: second.");
    assert_eq!(world.stored(&session), None);
}

fn a_command_stopped_from_the_terminal_keeps_its_lease_and_can_be_ended(world: &World) {
    const CTRL_Z: &str = "\x1a";
    const CTRL_C: &str = "\x03";
    let session = Session::new();
    let command = "sh -c 'echo asks; read -r line; echo again; read -r line'";
    let mut terminal = Terminal::start(world, &session, command, "true");
    terminal.wait_for("asks");
    terminal.type_in("first\n");
    terminal.wait_for("again");
    terminal.type_in(CTRL_Z);
    terminal.wait_for("the command is stopped and keeps its lease");
    is_renewed(world, &session);
    terminal.type_in(CTRL_C);
    eventually(|| "it is released", || world.stored(&session).is_none().then_some(()));
}

fn a_stopped_command_keeps_its_lease(world: &World) {
    let session = Session::new();
    let script = "echo $$ >pid; kill -STOP $$; echo 1 >again; kill -STOP $$; exit 5";
    let running = Running::start(&world.service.http_url(), &session, &["--ttl", "6s"], script);
    let pid = running.wait_for_file("pid");
    let wait_until_stopped =
        || eventually(|| "it is stopped", || (process_state(&pid) == Some('T')).then_some(()));
    wait_until_stopped();
    is_renewed(world, &session);
    signal(pid.trim(), "-CONT");
    running.wait_for_file("again");
    wait_until_stopped();
    signal(pid.trim(), "-CONT");
    let printed = running.finish();
    assert_eq!(printed.status, Some(5), "{printed:?}");
    assert_eq!(printed.err.matches("the command is stopped").count(), 1, "{printed:?}");
}

fn a_stopped_command_is_stopped_for_good_when_its_lease_is_lost(world: &World) {
    let session = Session::new();
    let script = "trap 'exit 9' TERM; echo $$ >pid; kill -STOP $$; sleep 60";
    let running = Running::start(&world.service.http_url(), &session, &["--ttl", "6s"], script);
    running.wait_for_file("pid");
    world.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
    let printed = running.finish();
    assert_eq!(printed.status, Some(9), "{printed:?}");
    assert_says(&printed.err, &["the command is stopped", "the lease is lost"]);
}

fn is_renewed(world: &World, session: &Session) {
    let before = world.stored(session);
    assert!(before.is_some());
    eventually(
        || "it is renewed",
        || world.stored(session).filter(|now| Some(now) != before.as_ref()),
    );
}
