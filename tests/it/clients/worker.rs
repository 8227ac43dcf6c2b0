//! A client as a child process.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use serde_json::Value;

use crate::world::{KillOnDrop, Printed, Session};

pub const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// An environment with an unreachable proxy.
pub const DEAD_PROXY: [(&str, &str); 9] = [
    ("http_proxy", NOWHERE),
    ("HTTP_PROXY", NOWHERE),
    ("https_proxy", NOWHERE),
    ("HTTPS_PROXY", NOWHERE),
    ("all_proxy", NOWHERE),
    ("ALL_PROXY", NOWHERE),
    ("no_proxy", ""),
    ("NO_PROXY", ""),
    // Without this variable, no version of Node reads the others.
    ("NODE_USE_ENV_PROXY", "1"),
];
const NOWHERE: &str = "http://127.0.0.1:9";

/// A client for one language.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The program that demonstrates it, and its first arguments.
    pub program: &'static [&'static str],
    /// Its other features besides acquire, renew, commit and release.
    pub skills: &'static [Skill],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skill {
    RenewsByItself,
    SaysWhetherItIsAlive,
}

const ALL_SKILLS: &[Skill] = &[Skill::RenewsByItself, Skill::SaysWhetherItIsAlive];

pub const NODE: Client = Client { program: &["node", "session_lock.mjs"], skills: ALL_SKILLS };
pub const PHP: Client = Client { program: &["php", "session_lock.php"], skills: &[] };
pub const PYTHON: Client = Client { program: &["python3", "session_lock.py"], skills: ALL_SKILLS };
pub const SHELL: Client =
    Client { program: &["sh", "session_lock.sh"], skills: &[Skill::RenewsByItself] };

pub fn go() -> Client {
    static PROGRAM: OnceLock<()> = OnceLock::new();
    const PROGRAM_FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/session_lock_go");
    const FILES: [&str; 3] = ["session_lock.go", "session_lock_http.go", "session_lock_demo.go"];
    PROGRAM.get_or_init(|| go_build(Path::new(CLIENTS), PROGRAM_FILE, &FILES));
    Client { program: &[PROGRAM_FILE], skills: ALL_SKILLS }
}

/// Checks all clients that have these skills, at the same time.
pub fn every_client(skills: &[Skill], check: impl Fn(Client) + Sync) {
    let check = &check;
    thread::scope(|scope| {
        for client in [go(), NODE, PHP, PYTHON, SHELL] {
            if skills.iter().all(|&skill| client.can(skill)) {
                scope.spawn(move || check(client));
            }
        }
    });
}

impl Client {
    pub fn can(self, skill: Skill) -> bool {
        self.skills.contains(&skill)
    }
}

/// A client's demonstration as a child process. It reads one command per line, and prints one
/// answer per line.
pub struct Worker {
    _child: KillOnDrop,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub fn start(client: Client, address: SocketAddr, session: &Session, options: &[&str]) -> Self {
        Self::start_at(client, &format!("http://{address}"), session, options)
    }

    pub fn start_at(client: Client, url: &str, session: &Session, options: &[&str]) -> Self {
        let mut demo = command(client.program);
        demo.args([&session.device, &session.prospect]).args(options);
        Self::spawn(demo.env("SESSION_LOCK_URL", url))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .env("SESSION_LOCK_API_TOKEN", "secret")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: KillOnDrop(child),
        }
    }

    pub fn send(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    pub fn answer(&mut self) -> Value {
        let line = self.answers.next().expect("an answer").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Sends a command. Returns the answer.
    pub fn tell(&mut self, command: &str) -> Value {
        self.send(command);
        self.answer()
    }
}

/// Tells a client's demonstration to acquire. Returns its whole output.
pub fn acquire_once(program: &[&str], url: &str, options: &[&str]) -> Printed {
    let Session { device, prospect } = &Session::new();
    let mut demo = command(program);
    demo.args([device, prospect]).args(options).env("SESSION_LOCK_URL", url);
    demo.env("SESSION_LOCK_API_TOKEN", "secret").envs(DEAD_PROXY);
    printed(&mut demo, "acquire\n")
}

/// Runs a program with this input. Returns its whole output.
pub fn printed(program: &mut Command, input: &str) -> Printed {
    let pipes = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // A program that has already ended reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

/// A program with its first arguments, in the clients' folder.
pub fn command(words: &[&str]) -> Command {
    let installed = Command::new("which").arg(words[0]).stdout(Stdio::null()).status().unwrap();
    assert!(installed.success(), "{} is missing: run tests/install languages", words[0]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(CLIENTS);
    command
}

pub fn go_build(folder: &Path, program: &str, files: &[&str]) {
    let compiler = ["go", "build", "-o", program];
    let built = command(&compiler).args(files).current_dir(folder).status().unwrap();
    assert!(built.success());
}
