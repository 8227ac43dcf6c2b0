//! The command line: runs the command that the first argument names.

mod check;
mod child;
mod client;
mod database_url;
mod dev;
mod exit_status;
mod flags;
mod health;
mod list;
mod migrate;
pub mod private_database;
mod release;
mod run;
mod serve;
mod settings;
mod unix;
mod url_parameters;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::http::Config;
use crate::logging;
use crate::store::Store;

/// The name of a command, its function, and what `--help` says after the name.
type Command = (&'static str, fn(Vec<OsString>) -> Result<(), Failure>, &'static str);

/// The commands that connect to the database. They take the settings of the service.
const DATABASE_COMMANDS: [Command; 4] = [
    ("serve", serve::run, "run the service"),
    ("dev", dev::run, "run the service on a private database, to try it out"),
    (
        "check",
        check::run,
        "say what is right and what is wrong with the database (status 1: problems); --json",
    ),
    ("migrate", migrate::run, "create the tables that are missing"),
];

/// The commands that send requests to a server.
const CLIENT_COMMANDS: [Command; 4] = [
    ("list", list::run, "[--device D] [--json]"),
    ("release", release::run, "--force --device D --prospect P [--fencing-token N]"),
    ("run", run::run, run::HELP),
    ("health", health::run, health::HELP),
];

/// Why a command did not succeed.
#[derive(Debug)]
struct Failure {
    status: u8,
    /// The text for standard error, if any.
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

pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_else(|| "--help".into());
    let logging = logging::init().map_err(Failure::usage);
    let run = |()| dispatch(&command.to_string_lossy(), arguments.collect());
    let Err(failure) = logging.and_then(run) else {
        return ExitCode::from(exit_status::OK);
    };
    if let Some(message) = failure.message {
        eprintln!("{message}");
    }
    ExitCode::from(failure.status)
}

fn dispatch(name: &str, arguments: Vec<OsString>) -> Result<(), Failure> {
    let asks_for_help = arguments.first().is_some_and(|flag| flag == "--help" || flag == "-h");
    match if asks_for_help { "--help" } else { name } {
        "--help" | "-h" | "help" => print(help()),
        "--version" | "-V" => print(concat!("session-lock ", env!("CARGO_PKG_VERSION"))),
        name => {
            let mut commands = DATABASE_COMMANDS.iter().chain(&CLIENT_COMMANDS);
            let (_, run, _) = commands.find(|(known, ..)| *known == name).ok_or_else(|| {
                let error = format!("unknown command {name:?}");
                Failure::usage(error + "; session-lock --help lists the commands")
            })?;
            return run(arguments);
        }
    }
    Ok(())
}

fn help() -> String {
    let lines = |commands: &[Command], width| {
        let line = |(name, _, help): &Command| format!("session-lock {name:<width$} {help}\n");
        commands.iter().map(line).collect::<String>()
    };
    format!(
        "One worker at a time per chat conversation.\n\n{}\n\
         The settings of these commands are environment variables or flags:\n{}  \
         RUST_LOG\n      error, warn, info, debug [info]\n\n\
         The next commands send requests to a server, at --url, SESSION_LOCK_URL or SESSION_LOCK_LISTEN:\n\n{}",
        lines(&DATABASE_COMMANDS, 9),
        settings::help(),
        lines(&CLIENT_COMMANDS, 0).trim_end()
    )
}

/// Prints a line on standard output. A reader may close the pipe early, as `head` does.
fn print(line: impl Display) {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("session-lock: cannot print: {error}");
            std::process::exit(exit_status::FAILED.into());
        }
        _ => {}
    }
}

fn config(arguments: Vec<OsString>) -> Result<Config, Failure> {
    settings::read(arguments, |variable| std::env::var_os(variable))
}

/// The store of a command, which runs one statement at a time and so needs one connection.
fn store(config: &Config) -> Store {
    Store::new(&config.database, &config.table, config.time_zone.as_deref(), 1)
}
