//! The command line: runs the command that the first argument names.

mod check;
mod child;
mod client;
mod database_url;
mod dev;
mod exit_status;
mod flags;
mod list;
mod migrate;
pub mod private_database;
mod release;
mod run;
mod serve;
mod settings;
mod unix;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::config::Config;
use crate::logging::Journal;
use crate::store::Store;

/// A row of [`COMMANDS`].
struct Command {
    name: &'static str,
    group: Group,
    run: fn(Vec<OsString>) -> Result<(), Failure>,
    help: &'static str,
}

/// The part of `--help` that lists a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Works on the database, with the settings of the service.
    Service,
    /// Sends requests to a server.
    Client,
}

/// All commands, in the order of `--help`.
const COMMANDS: [Command; 7] = [
    Command { name: "serve", group: Group::Service, run: serve::run, help: serve::HELP },
    Command { name: "dev", group: Group::Service, run: dev::run, help: dev::HELP },
    Command { name: "check", group: Group::Service, run: check::run, help: check::HELP },
    Command { name: "migrate", group: Group::Service, run: migrate::run, help: migrate::HELP },
    Command { name: "list", group: Group::Client, run: list::run, help: list::HELP },
    Command { name: "release", group: Group::Client, run: release::run, help: release::HELP },
    Command { name: "run", group: Group::Client, run: run::run, help: run::HELP },
];

/// Why a command did not succeed.
struct Failure {
    status: u8,
    /// What to print on standard error, if the command has not printed it.
    message: Option<String>,
}

impl Failure {
    fn new(status: u8, message: impl Display) -> Self {
        Self { status, message: Some(format!("session-lock: {message}")) }
    }

    fn usage(message: impl Display) -> Self {
        Self::new(exit_status::USAGE, message)
    }

    /// A failure with a message that does not begin with the program's name.
    fn verbatim(message: String) -> Self {
        Self { status: exit_status::FAILED, message: Some(message) }
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let filter = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(filter)
        .target(env_logger::Target::Pipe(Box::new(Journal)))
        // The service logs the same failures itself, with what to do about them.
        .filter_module("tiny_http", log::LevelFilter::Off)
        .format(|line, record| writeln!(line, "{:<5} {}", record.level(), record.args()))
        .init();
    std::panic::set_hook(Box::new(|panic| {
        log::error!("a bug in session-lock: {panic}");
    }));

    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_else(|| "--help".into());
    let Err(failure) = dispatch(&command.to_string_lossy(), arguments.collect()) else {
        return ExitCode::from(exit_status::OK);
    };
    if let Some(message) = failure.message {
        eprintln!("{message}");
    }
    ExitCode::from(failure.status)
}

fn dispatch(name: &str, arguments: Vec<OsString>) -> Result<(), Failure> {
    let asks_for_help = arguments.first().is_some_and(|flag| flag == "--help" || flag == "-h");
    if asks_for_help || matches!(name, "--help" | "-h" | "help") {
        print(help());
    } else if matches!(name, "--version" | "-V") {
        print(concat!("session-lock ", env!("CARGO_PKG_VERSION")));
    } else if let Some(command) = COMMANDS.iter().find(|command| command.name == name) {
        return (command.run)(arguments);
    } else {
        let error = format!("there is no command {name:?}; session-lock --help lists them");
        return Err(Failure::usage(error));
    }
    Ok(())
}

fn help() -> String {
    let commands = |group| {
        let commands = COMMANDS.iter().filter(|command| command.group == group);
        commands.map(|command| command.help).collect::<Vec<_>>().join("\n")
    };
    format!(
        "One worker at a time per chat conversation.\n\n{}\n\n\
         These settings of theirs are environment variables or flags:\n{}  \
         RUST_LOG\n      error, warn, info, debug [info]\n\n\
         These talk to a server, at --url or SESSION_LOCK_URL, or else at SESSION_LOCK_LISTEN:\n\n{}",
        commands(Group::Service),
        settings::help(),
        commands(Group::Client)
    )
}

/// Prints a line on standard output. A reader that closes its end early, such as `head`, is fine.
fn print(line: impl Display) {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("session-lock: cannot print: {error}");
            std::process::exit(exit_status::FAILED.into());
        }
        _ => {}
    }
}

/// The settings of the service, from the flags and the environment.
fn config(arguments: Vec<OsString>) -> Result<Config, Failure> {
    settings::read(arguments, |variable| std::env::var_os(variable)).map_err(Failure::usage)
}

/// A store for a command that does one thing after the other.
fn store(config: &Config) -> Store {
    Store::new(&config.database, &config.table, config.time_zone.as_deref(), 1)
}
