//! The command line: which command, with which settings, and its exit status.

mod client;
mod database_url;
mod flags;
pub mod private_database;
mod run;
mod settings;
mod unix;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::client::{Answer, Client, Ids};
use crate::cli::flags::{ClientConfig, Flags};
use crate::cli::private_database::PrivateDatabase;
use crate::config::{Config, Listen};
use crate::doctor::{Finding, MESSAGE_TABLE, Report, Verdict};
use crate::http::api::LIST_MAX;
use crate::http::server::{Ending, Server};
use crate::lease::TTL_DEFAULT_MS;
use crate::logging::Journal;
use crate::store::Store;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// What a command ended with, other than success.
enum Failure {
    Failed(String),
    /// Something is wrong with the command line or a setting: status 2.
    Usage(String),
    /// A status of the command's own, and perhaps a word about it.
    Status(u8, Option<String>),
}

/// The session is held: EX_TEMPFAIL of sysexits.h, try again later.
const STATUS_HELD: u8 = 75;

/// There is no server: EX_UNAVAILABLE of sysexits.h.
const STATUS_NO_SERVER: u8 = 69;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let filter = env_logger::Env::default().default_filter_or("info");
    let mut logger = env_logger::Builder::from_env(filter);
    logger
        .target(env_logger::Target::Pipe(Box::new(Journal)))
        // What it complains of, the service says itself, with what to do.
        .filter_module("tiny_http", log::LevelFilter::Off)
        .format(|line, record| writeln!(line, "{:<5} {}", record.level(), record.args()))
        .init();
    std::panic::set_hook(Box::new(|panic| {
        log::error!("a bug in session-lock: {panic}");
    }));

    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_else(|| "--help".into());
    let (status, word) = match dispatch(&command.to_string_lossy(), arguments) {
        Ok(()) => (0, None),
        Err(Failure::Failed(word)) => (1, Some(word)),
        Err(Failure::Usage(word)) => (2, Some(format!("session-lock: {word}"))),
        Err(Failure::Status(status, word)) => {
            (status, word.map(|word| format!("session-lock: {word}")))
        }
    };
    if let Some(word) = word {
        eprintln!("{word}");
    }
    ExitCode::from(status)
}

fn dispatch(command: &str, flags: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let mut flags = flags.peekable();
    let asks_for_help = flags.peek().is_some_and(|flag| flag == "--help" || flag == "-h");
    let command = if asks_for_help { "--help" } else { command };
    let variable = |name: &str| std::env::var_os(name);
    let config = |flags: &mut dyn Iterator<Item = OsString>| {
        settings::read(flags, variable).map_err(Failure::Usage)
    };
    let client = |flags, with_value: &[&str], switches: &[&str]| {
        ClientConfig::read(flags, variable, with_value, switches).map_err(Failure::Usage)
    };
    match command {
        "serve" => serve(&config(&mut flags)?),
        "dev" => dev(flags),
        "check" => {
            let (json, flags): (Vec<_>, Vec<_>) = flags.partition(|flag| flag == "--json");
            let print = if json.is_empty() { print_lines } else { print_json };
            check(&config(&mut flags.into_iter())?, print)
        }
        "migrate" => migrate(&config(&mut flags)?),
        "list" => list(&client(flags, &["device"], &["json"])?),
        "release" => release(&client(flags, &["device", "prospect", "fencing-token"], &["force"])?),
        "run" => run_command(client(flags, &["device", "prospect", "wait", "ttl"], &[])?),
        "--version" | "-V" => {
            print(concat!("session-lock ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        "--help" | "-h" | "help" => {
            print(help());
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
         session-lock check     what is right and what is wrong with the database (status 1: problems); --json\n\
         session-lock migrate   create the tables that are missing\n\n\
         These settings of theirs are environment variables or flags:\n",
    );
    text.push_str(&settings::help());
    text + "  RUST_LOG\n      error, warn, info, debug [info]\n\n\
         These talk to a server, at --url or SESSION_LOCK_URL, or else at SESSION_LOCK_LISTEN:\n\n\
         session-lock list [--device D] [--json]\n\
         session-lock release --force --device D --prospect P [--fencing-token N]\n\
         session-lock run --device D --prospect P [--wait 10s] [--ttl 30s] -- CMD ...\n      \
         runs CMD under a lease and ends with its status: 128+n for a signal, 126 or 127 if it cannot\n      \
         be started; 75: held by somebody else, 69: no server, 2: wrong flag [--wait 0, --ttl 30s]"
}

/// A line of output. Who reads no further than the first lines is no failure.
fn print(line: impl Display) {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("session-lock: cannot print: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
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
    print("starting a private database ...");
    let database = PrivateDatabase::start_installed().map_err(Failure::Failed)?;
    let url = database.url();
    let setting = |name: &str| {
        if name == "DATABASE_URL" { Some(url.clone().into()) } else { std::env::var_os(name) }
    };
    // The machine's own zone is as good as any for a database that goes away.
    let flags = ["--time-zone=+00:00".into()].into_iter().chain(flags);
    let config = settings::read(flags, setting).map_err(Failure::Usage)?;
    migrate(&config)?;
    let server = Server::bind(&config).map_err(Failure::Failed)?;
    let (base, curl) = match server.address() {
        Listen::Tcp(address) => (format!("http://{address}"), "curl".to_owned()),
        Listen::Unix(path) => {
            ("http://session-lock".to_owned(), format!("curl --unix-socket {}", path.display()))
        }
    };
    let ids = r#""id_device":"bot1","id_prospect":"60123456789""#;
    let owner = r#""owner_token":"48210000000000000007""#;
    print(format_args!(
        "\nserving on {}; Ctrl-C ends it, and the database with it. Try, in another terminal:\n\n\
         {curl} {base}/v1/acquire -d '{{{ids},{owner},\"ttl_ms\":300000}}'\n\
         {curl} {base}/v1/acquire -d '{{{ids}}}'\n\
         {curl} {base}/v1/release -d '{{{ids},{owner}}}'\n\n\
         For session-lock check and its like:\n\n\
         export DATABASE_URL='{url}'\n",
        server.address()
    ));
    finish(server.run())
}

fn print_lines(findings: &[Finding]) {
    for finding in findings {
        print(finding);
    }
}

fn print_json(findings: &[Finding]) {
    let findings = findings.iter().map(|finding| {
        json!({
            "verdict": finding.verdict.to_string(), "topic": finding.topic, "text": finding.text,
            "sql": finding.sql,
        })
    });
    print(findings.collect::<Value>());
}

/// A store for a single errand.
fn store(config: &Config) -> Store {
    Store::new(&config.database, &config.table, config.time_zone.as_deref(), 1)
}

fn check(config: &Config, print: fn(&[Finding])) -> Result<(), Failure> {
    let report = store(config).inspect().unwrap_or_else(|cause| Report::unreachable(&cause));
    print(&report.findings);
    match report.of(Verdict::Problem).count() {
        0 => Ok(()),
        _ => Err(Failure::Status(1, None)),
    }
}

fn migrate(config: &Config) -> Result<(), Failure> {
    let failed =
        |cause| Failure::Failed(format!("session-lock: cannot create what is missing: {cause}"));
    store(config).migrate().map_err(failed)?;
    print(format_args!(
        "{} and {MESSAGE_TABLE} are there; session-lock check tells whether they will do",
        config.table
    ));
    Ok(())
}

fn list(config: &ClientConfig) -> Result<(), Failure> {
    let client = Client::new(&config.url, config.api_token.clone());
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let device = config.flags.get("device");
    let device = device.map_or(String::new(), |device| format!("&id_device={}", encode(device)));
    let (mut locks, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/locks?limit={LIST_MAX}{device}{after}"));
        let page = page.map_err(no_server)?;
        if page.status != 200 {
            return Err(unanswered(&page));
        }
        locks.extend(page.body["locks"].as_array().cloned().unwrap_or_default());
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={}", encode(next)),
            None => break,
        }
    }
    if config.flags.has("json") {
        print(Value::from(locks));
        return Ok(());
    }
    print(format_args!(
        "{:<24} {:<20} {:>10} {:>12} {:>7}  FENCING TOKEN",
        "DEVICE", "PROSPECT", "HELD", "REMAINING", "WAITERS"
    ));
    let seconds = |ms: &Value| {
        ms.as_u64().map_or("?".to_owned(), |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100))
    };
    for lock in &locks {
        let text =
            |field: &str| lock[field].as_str().unwrap_or_default().escape_debug().to_string();
        let fencing_token = lock["fencing_token"]
            .as_u64()
            .map_or("(old program)".to_owned(), |number| number.to_string());
        print(format_args!(
            "{:<24} {:<20} {:>10} {:>12} {:>7}  {fencing_token}",
            text("id_device"),
            text("id_prospect"),
            seconds(&lock["held_ms"]),
            seconds(&lock["remaining_ms"]),
            lock["waiters"].to_string(),
        ));
    }
    Ok(())
}

fn release(config: &ClientConfig) -> Result<(), Failure> {
    let flags = &config.flags;
    if !flags.has("force") {
        return Err(Failure::Usage(
            "release takes --force: a worker releases with its owner token, over HTTP".to_owned(),
        ));
    }
    let ids = ids(flags)?;
    let mut fields = json!({"force": true});
    if let Some(text) = flags.get("fencing-token") {
        let number: u64 = text
            .parse()
            .map_err(|_| Failure::Usage("--fencing-token must be a number".to_owned()))?;
        fields["fencing_token"] = json!(number);
    }
    let client = Client::new(&config.url, config.api_token.clone());
    let answer =
        client.post("/v1/release", &ids, fields, client::ANSWER_PATIENCE).map_err(no_server)?;
    match answer.status {
        200 => {
            print("released");
            Ok(())
        }
        409 if flags.has("fencing-token") => {
            Err(Failure::Failed("session-lock: not held, or not by that lease".to_owned()))
        }
        409 => Err(Failure::Failed("session-lock: not held".to_owned())),
        _ => Err(unanswered(&answer)),
    }
}

fn run_command(config: ClientConfig) -> Result<(), Failure> {
    let ClientConfig { url, api_token, flags } = config;
    let ttl = flags.duration("ttl").map_err(Failure::Usage)?;
    let wait = flags.duration("wait").map_err(Failure::Usage)?;
    let ids = ids(&flags)?;
    if flags.rest.is_empty() {
        return Err(Failure::Usage("run needs a command, after --".to_owned()));
    }
    let ttl = ttl.unwrap_or(Duration::from_millis(TTL_DEFAULT_MS));
    let task = run::Task { ids, wait: wait.unwrap_or_default(), ttl, command: flags.rest };
    match run::run(&Client::new(&url, api_token), &task) {
        run::Outcome::Exited(0) => Ok(()),
        run::Outcome::Exited(status) => Err(Failure::Status(status, None)),
        run::Outcome::Held(word) => Err(Failure::Status(STATUS_HELD, Some(word))),
        run::Outcome::NoServer(word) => Err(no_server(word)),
        run::Outcome::Refused(word) => Err(Failure::Usage(word)),
        run::Outcome::NotStarted(status, word) => Err(Failure::Status(status, Some(word))),
    }
}

fn ids(flags: &Flags) -> Result<Ids, Failure> {
    let device = flags.need("device").map_err(Failure::Usage)?;
    let prospect = flags.need("prospect").map_err(Failure::Usage)?;
    Ok(Ids { device, prospect })
}

/// Of an answer that says neither yes nor no.
fn unanswered(answer: &Answer) -> Failure {
    if answer.is_refusal() {
        return Failure::Usage(answer.complaint());
    }
    no_server(answer.complaint())
}

fn no_server(word: String) -> Failure {
    Failure::Status(STATUS_NO_SERVER, Some(word))
}
