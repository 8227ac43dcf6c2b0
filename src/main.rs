//! The command line: which command, with which settings, and its exit status.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use session_lock::config::{Config, SETTINGS, Setting};
use session_lock::dev::PrivateDatabase;
use session_lock::server::{Ending, Server};
use session_lock::store::Store;
use session_lock::table::Verdict;

/// What a command failed with, by its exit status.
enum Failure {
    /// Something is wrong with the world: status 1.
    Failed(String),
    /// Something is wrong with the command line or a setting: status 2.
    Usage(String),
}

fn main() -> ExitCode {
    let filter = env_logger::Env::default().default_filter_or("info");
    let mut logger = env_logger::Builder::from_env(filter);
    logger
        .format(|line, record| writeln!(line, "{:<5} {}", record.level(), record.args()))
        .init();

    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_else(|| "--help".into());
    match run(&command.to_string_lossy(), arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(lines)) => {
            eprintln!("{lines}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(line)) => {
            eprintln!("session-lock: {line}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &str, flags: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let config = |flags| Config::read(flags, |name| std::env::var_os(name)).map_err(Failure::Usage);
    match command {
        "serve" => serve(&config(flags)?),
        "dev" => dev(flags),
        "check" => check(&config(flags)?),
        "migrate" => migrate(&config(flags)?),
        "--version" | "-V" => {
            println!("session-lock {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        "--help" | "-h" | "help" => {
            print!("{}", help());
            Ok(())
        }
        _ => Err(Failure::Usage(format!(
            "there is no command {command:?}; session-lock --help lists them"
        ))),
    }
}

fn help() -> String {
    let mut text = String::from(
        "One worker at a time per chat conversation.\n\n\
         session-lock serve     the service\n\
         session-lock dev       the service on a private database, to try it out\n\
         session-lock check     what is right and what is wrong with the database (status 1: problems)\n\
         session-lock migrate   create the tables that are missing\n\n\
         Settings, as environment variables or flags:\n",
    );
    for Setting {
        variable,
        flag,
        help,
    } in &SETTINGS
    {
        text.push_str(&[variable, " / --", flag, ": ", help, "\n"].concat());
    }
    text + "  RUST_LOG                   error, warn, info, debug [info]\n"
}

fn serve(config: &Config) -> Result<(), Failure> {
    finish(Server::bind(config).map_err(Failure::Failed)?.run())
}

fn finish(ending: Ending) -> Result<(), Failure> {
    match ending {
        Ending::Stopped => Ok(()),
        Ending::Unusable(findings) => {
            let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
            Err(Failure::Failed(lines.join("\n")))
        }
        Ending::Failed(line) => Err(Failure::Failed(format!("session-lock: {line}"))),
    }
}

fn dev(flags: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    println!("starting a private database ...");
    let database = PrivateDatabase::start_installed().map_err(Failure::Failed)?;
    let url = OsString::from(database.url());
    let setting = |name: &str| {
        if name == "DATABASE_URL" {
            Some(url.clone())
        } else {
            std::env::var_os(name)
        }
    };
    // The machine's own zone is as good as any for a database that goes away.
    let flags = ["--time-zone=+00:00".into()].into_iter().chain(flags);
    let config = Config::read(flags, setting).map_err(Failure::Usage)?;
    migrate(&config)?;
    let server = Server::bind(&config).map_err(Failure::Failed)?;
    let base = format!("http://{}", server.address());
    println!(
        "\nserving on {base}; Ctrl-C ends it, and the database with it. Try:\n\n\
         curl {base}/v1/acquire -d '{{\"id_device\":\"bot1\",\"id_prospect\":\"60123456789\"}}'\n\
         curl {base}/v1/locks/bot1/60123456789\n\
         curl {base}/v1/release -d '{{\"id_device\":\"bot1\",\"id_prospect\":\"60123456789\",\"owner_token\":\"...\"}}'\n"
    );
    finish(server.run())
}

fn check(config: &Config) -> Result<(), Failure> {
    let store = Store::new(
        &config.database,
        &config.table,
        config.time_zone.as_deref(),
        1,
    );
    let unreachable = |cause| {
        Failure::Failed(format!(
            "{:<8} {:<12} cannot be reached: {cause}",
            Verdict::Problem,
            "server"
        ))
    };
    let report = store.inspect().map_err(unreachable)?;
    report
        .findings
        .iter()
        .for_each(|finding| println!("{finding}"));
    match report.of(Verdict::Problem).count() {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 problem".to_owned())),
        problems => Err(Failure::Failed(format!("{problems} problems"))),
    }
}

fn migrate(config: &Config) -> Result<(), Failure> {
    let store = Store::new(
        &config.database,
        &config.table,
        config.time_zone.as_deref(),
        1,
    );
    store.migrate().map_err(|cause| {
        Failure::Failed(format!(
            "session-lock: cannot create {}: {cause}",
            config.table
        ))
    })?;
    println!("{} is in place", config.table);
    Ok(())
}
