//! The settings of the service: one table of flags, environment variables, defaults and parsers.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use mysql::Opts;

use self::DefaultValue::{Off, Required, Text};
use super::Failure;
use super::database_url;
use super::flags::Flags;
use crate::db::MESSAGE_TABLE;
use crate::http::{ApiToken, Config};
use crate::lease::TTL_MIN_MS;
use crate::net::{Listen, UNIX_PREFIX};

/// Only programs on the same machine can reach this address.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7099";

/// The only variable that is not ignored if it is empty.
pub const API_TOKEN_VARIABLE: &str = "SESSION_LOCK_API_TOKEN";

/// Octal modes that let the service itself read and write.
const SOCKET_MODES: RangeInclusive<u32> = 0o600..=0o777;

/// The longest path of a socket's address, less the suffix that `net::listener` appends until the
/// socket has its permissions.
const SOCKET_PATH_MAX_BYTES: usize = 96;

/// The longest table name in MySQL and MariaDB.
const TABLE_NAME_MAX_CHARS: usize = 64;

/// Each worker holds a database connection, and MySQL allows 151 in all by default.
const WORKERS: RangeInclusive<usize> = 1..=64;

/// Up to a day: no customer waits longer for an answer in a chat.
const MAX_HOLD_MS: RangeInclusive<u64> = TTL_MIN_MS..=24 * 3_600_000;

/// From a minute, the shortest time until a provider delivers a message again, to ten years, longer
/// than any bot keeps messages.
const MESSAGE_RETENTION_MS: RangeInclusive<u64> = 60_000..=3_650 * 24 * 3_600_000;

/// A row of [`SETTINGS`].
struct Setting {
    /// The flag, without its dashes.
    flag: &'static str,
    /// The environment variable. Errors about the flag name it too.
    variable: &'static str,
    default: DefaultValue,
    help: &'static str,
    /// Parses the value and stores it.
    apply: fn(&mut Config, &str) -> Result<(), String>,
}

/// What happens if a setting is missing.
#[derive(Clone, Copy)]
enum DefaultValue {
    /// An error that ends with this text.
    Required(&'static str),
    /// This text is parsed instead.
    Text(&'static str),
    /// The setting is off. `--help` shows this text as the default.
    Off(&'static str),
}

/// All settings, in the order of `--help`.
const SETTINGS: &[Setting] = &[
    Setting {
        flag: "database-url",
        variable: "DATABASE_URL",
        default: Required(
            "mysql://user:password@host:port/db names the bot's database (the systemd unit reads /etc/session-lock.env; a shell does not)",
        ),
        help: "mysql://user:password@host:port/db, or ...@localhost/db?socket=/path",
        apply: |config, text| database_url::parse(text).map(|options| config.database = options),
    },
    Setting {
        flag: "listen",
        variable: "SESSION_LOCK_LISTEN",
        default: Text(LISTEN_DEFAULT),
        help: "address and port, or unix:/path",
        apply: |config, text| listen(text).map(|listen| config.listen = listen),
    },
    Setting {
        flag: "socket-mode",
        variable: "SESSION_LOCK_SOCKET_MODE",
        // Only the user and the group of the service may connect.
        default: Text("0660"),
        help: "octal mode of unix:/path: who may connect",
        apply: |config, text| socket_mode(text).map(|mode| config.socket_mode = mode),
    },
    Setting {
        flag: "table",
        variable: "SESSION_LOCK_TABLE",
        // The table of the production bot.
        default: Text("ai_whatsapp_session_nodepath"),
        help: "the lock table",
        apply: |config, text| table(text).map(|table| config.table = table),
    },
    Setting {
        flag: "workers",
        variable: "SESSION_LOCK_WORKERS",
        // Few workers make large batches, which cost the database least. On two cores, two workers
        // are slightly faster, but with three, one continues while two wait for locked rows.
        default: Text("3"),
        help: "worker threads, 1-64",
        apply: |config, text| workers(text).map(|workers| config.workers = workers),
    },
    Setting {
        flag: "api-token",
        variable: API_TOKEN_VARIABLE,
        default: Off("none"),
        help: "callers must send Authorization: Bearer TOKEN",
        apply: |config, text| ApiToken::new(text).map(|token| config.api_token = Some(token)),
    },
    Setting {
        flag: "origin",
        variable: "SESSION_LOCK_ORIGIN",
        default: Off("none"),
        help: "the page's address behind a proxy that replaces Host, such as https://lock.example.com",
        apply: |config, text| origin(text).map(|origin| config.origin = Some(origin)),
    },
    Setting {
        flag: "max-hold-ms",
        variable: "SESSION_LOCK_MAX_HOLD_MS",
        // 15 minutes: over three times the longest work of a worker seen so far. A worker that
        // hangs but renews its lease blocks its customer for at most this time.
        default: Text("900000"),
        help: "longest hold of a lease, with its renewals, 1000-86400000",
        apply: |config, text| ms(text, MAX_HOLD_MS).map(|ms| config.max_hold_ms = ms),
    },
    Setting {
        flag: "message-retention-ms",
        variable: "SESSION_LOCK_MESSAGE_RETENTION_MS",
        // Eight days: providers deliver a message again for up to seven days.
        default: Text("691200000"),
        help: "how long records of answered messages are kept, 60000-315360000000",
        apply: |config, text| {
            ms(text, MESSAGE_RETENTION_MS).map(|ms| config.message_retention_ms = ms)
        },
    },
    Setting {
        flag: "time-zone",
        variable: "SESSION_LOCK_TIME_ZONE",
        // Without an offset, the service uses UTC, and `check` requires that the database does too.
        default: Off("+00:00"),
        help: "fixed offset of the database's clock, such as +08:00",
        apply: |config, text| time_zone(text).map(|offset| config.time_zone = Some(offset)),
    },
];

/// The initial value, in which each row of [`SETTINGS`] replaces its field.
fn nothing_set() -> Config {
    Config {
        database: Opts::default(),
        listen: Listen::Unix(PathBuf::new()),
        socket_mode: 0,
        table: String::new(),
        workers: 0,
        api_token: None,
        origin: None,
        max_hold_ms: 0,
        message_retention_ms: 0,
        time_zone: None,
    }
}

/// Reads each setting from its flag, its environment variable or its default, in this order. An
/// error is one line, which names the flag or begins with the variable.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Config, Failure> {
    let flags: Vec<_> = SETTINGS.iter().map(|setting| setting.flag).collect();
    let flags = Flags::read(arguments, &flags, &[])?;
    if let Some(word) = flags.rest.first() {
        return Err(Failure::usage(format!("{} is not an option", word.display())));
    }
    // An empty variable in an environment file means "not set". An empty API token is an error,
    // because without a token anyone can acquire leases.
    let environment = |variable: &str| {
        environment(variable).filter(|value| !value.is_empty() || variable == API_TOKEN_VARIABLE)
    };
    let mut config = nothing_set();
    for Setting { flag, variable, default, apply, .. } in SETTINGS {
        let text = flags.get_or_variable(flag, variable, environment)?;
        let result = match (text.as_deref(), *default) {
            (Some(text), _) | (None, Text(text)) => apply(&mut config, text),
            (None, Off(_)) => Ok(()),
            (None, Required(error)) => Err(format!("is not set: {error}")),
        };
        result.map_err(|error| Failure::usage(format!("{variable} {error}")))?;
    }
    Ok(config)
}

pub fn help() -> String {
    let lines = |Setting { flag, variable, default, help, .. }: &Setting| {
        let default = match default {
            Text(text) | Off(text) => format!(" [{text}]"),
            Required(_) => String::new(),
        };
        format!("  {variable}, --{flag}\n      {help}{default}\n")
    };
    SETTINGS.iter().map(lines).collect()
}

pub fn listen(text: &str) -> Result<Listen, String> {
    match text.strip_prefix(UNIX_PREFIX) {
        Some(path) if path.starts_with('/') && path.len() <= SOCKET_PATH_MAX_BYTES => {
            Ok(Listen::Unix(path.into()))
        }
        Some(_) => Err(format!(
            "must have an absolute path of at most {SOCKET_PATH_MAX_BYTES} bytes after {UNIX_PREFIX}"
        )),
        None => text.parse().map(Listen::Tcp).map_err(|_| {
            format!("must be an IP address and a port, such as {LISTEN_DEFAULT}, or unix:/path")
        }),
    }
}

fn socket_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| SOCKET_MODES.contains(mode));
    mode.ok_or(
        "must be an octal mode such as 0660: to connect, a user needs read and write".to_owned(),
    )
}

fn table(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case(MESSAGE_TABLE) {
        return Err(format!("must not be {MESSAGE_TABLE}, the table of answered messages"));
    }
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'));
    if is_plain && (1..=TABLE_NAME_MAX_CHARS).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("must be a table name of 1-{TABLE_NAME_MAX_CHARS} letters, digits, _ and $"))
}

fn workers(text: &str) -> Result<usize, String> {
    let (least, most) = WORKERS.into_inner();
    let number = text.parse().ok().filter(|number| WORKERS.contains(number));
    number.ok_or_else(|| format!("must be a number from {least} to {most}"))
}

fn ms(text: &str, limits: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|ms| limits.contains(ms));
    let (least, most) = limits.into_inner();
    number.ok_or_else(|| format!("must be {least}-{most} milliseconds"))
}

/// Accepts the address of a page, without a path.
fn origin(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = authority.map(|authority| authority.trim_end_matches('/'));
    if authority.is_some_and(|authority| !authority.is_empty() && !authority.contains('/')) {
        Ok(text.to_owned())
    } else {
        Err("must be an address without a path, such as https://lock.example.com".to_owned())
    }
}

/// Accepts the offsets that both MySQL and MariaDB accept.
fn time_zone(text: &str) -> Result<String, String> {
    match text.as_bytes() {
        b"+13:00"
        | [b'+' | b'-', b'0', b'0'..=b'9', b':', b'0'..=b'5', b'0'..=b'9']
        | [b'+' | b'-', b'1', b'0'..=b'2', b':', b'0'..=b'5', b'0'..=b'9'] => Ok(text.to_owned()),
        _ => Err("must be a fixed offset from -12:59 to +13:00, such as +08:00 (not a zone name: daylight saving time moves locks by an hour)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: (&str, &str) = ("DATABASE_URL", "mysql://bot:s3cret@localhost/bots");

    fn read(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let variable =
            |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        let config = super::read(flags.iter().map(OsString::from), variable);
        config.map_err(|failure| failure.message.unwrap().replace("session-lock: ", ""))
    }

    #[test]
    fn a_database_url_is_all_that_is_needed() {
        let config = read(&[], &[URL]).unwrap();
        assert_eq!(config.listen.to_string(), LISTEN_DEFAULT);
        assert_eq!(config.table, "ai_whatsapp_session_nodepath");
        assert_eq!((config.workers, config.socket_mode), (3, 0o660));
        assert_eq!(config.max_hold_ms, 15 * 60_000);
        assert_eq!(config.message_retention_ms, 8 * 24 * 3_600_000);
        assert!(config.api_token.is_none() && config.time_zone.is_none());
    }

    #[test]
    fn a_flag_wins_over_the_environment_where_empty_is_not_set() {
        let environment = [URL, ("SESSION_LOCK_TABLE", "b"), ("SESSION_LOCK_MAX_HOLD_MS", "")];
        let config = read(&["--table", "a", "--workers=5"], &environment).unwrap();
        assert_eq!((config.table.as_str(), config.workers), ("a", 5));
    }

    #[test]
    fn every_wrong_value_names_its_setting_and_no_password() {
        for (variable, wrong) in [
            ("DATABASE_URL", &["", "mysql://localhost", "mysql://bot:12?s3cret@localhost/x"][..]),
            ("SESSION_LOCK_LISTEN", &["localhost", "unix:run/lock.sock"]),
            ("SESSION_LOCK_SOCKET_MODE", &["0680", "066"]),
            ("SESSION_LOCK_TABLE", &["a b"]),
            ("SESSION_LOCK_WORKERS", &["-1", "65"]),
            ("SESSION_LOCK_API_TOKEN", &["a b", ""]),
            ("SESSION_LOCK_MAX_HOLD_MS", &["999"]),
            ("SESSION_LOCK_MESSAGE_RETENTION_MS", &["59999"]),
            ("SESSION_LOCK_TIME_ZONE", &["Europe/Berlin", "+1:00", "+13:30", "-13:00", "+00:60"]),
        ] {
            for wrong in wrong {
                let line = read(&[], &[(variable, wrong), URL]).err().unwrap();
                assert!(line.starts_with(variable), "{variable}={wrong}: {line}");
                assert!(!line.contains('\n') && !line.contains("s3cret"), "{line}");
            }
        }
        assert!(read(&["--tabel=x"], &[URL]).err().unwrap().contains("--tabel"));
        assert!(read(&["x"], &[URL]).is_err());
    }

    #[test]
    fn help_states_the_limits_of_numbers() {
        let limits = |help: &str| {
            let (least, most) = help.rsplit(' ').next()?.split_once('-')?;
            Some((least.parse::<u64>().ok()?, most.parse::<u64>().ok()?))
        };
        for Setting { variable, help, apply, .. } in SETTINGS {
            let Some((least, most)) = limits(help) else { continue };
            for number in [least - 1, least, most, most + 1] {
                let result = apply(&mut nothing_set(), &number.to_string());
                let is_within = (least..=most).contains(&number);
                assert_eq!(result.is_ok(), is_within, "{variable}={number}");
            }
        }
    }

    #[test]
    fn offsets_are_read_as_the_database_writes_them() {
        for good in ["+00:00", "-00:30", "+08:00", "-12:59", "+13:00"] {
            assert_eq!(time_zone(good).as_deref(), Ok(good));
        }
    }
}
