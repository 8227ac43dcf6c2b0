//! The settings of the service: one table of flags, environment variables, defaults and parsers.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::database_url;
use super::flags::Flags;
use crate::config::{ApiToken, Config, Listen, UNIX_PREFIX};
use crate::lease::TTL_MIN_MS;

/// Bots on the same machine reach the service here, and nothing outside can.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7099";

/// The only variable that counts if it is empty.
const API_TOKEN_VARIABLE: &str = "SESSION_LOCK_API_TOKEN";

/// Each worker holds a database connection, and MySQL allows 151 in all by default.
const WORKERS_MAX: usize = 64;

/// A day: nobody waits longer for an answer in a chat, however often the lease is renewed.
const MAX_HOLD_MAX_MS: u64 = 24 * 3_600_000;

/// A minute: a provider delivers a message again after a minute at the earliest.
const MESSAGE_RETENTION_MIN_MS: u64 = 60_000;

/// Ten years: longer than any bot keeps messages.
const MESSAGE_RETENTION_MAX_MS: u64 = 3_650 * 24 * 3_600_000;

/// The longest path that fits into the address of a socket, less what `http::listener` appends to
/// it until the socket has its permissions.
const SOCKET_PATH_MAX_BYTES: usize = 96;

/// Only octal modes that let the service itself read and write.
const SOCKET_MODES: RangeInclusive<u32> = 0o600..=0o777;

/// The longest table name in MySQL and MariaDB.
const TABLE_NAME_MAX_CHARS: usize = 64;

/// A row of [`SETTINGS`].
struct Setting {
    /// The flag, without its dashes.
    flag: &'static str,
    /// The environment variable. Errors about the flag name it too.
    variable: &'static str,
    default: DefaultValue,
    help: &'static str,
    parser: Parser,
}

/// What a setting is if it is not given.
enum DefaultValue {
    /// An error that ends with this text.
    Required(&'static str),
    /// This text, parsed as if it were given.
    Text(&'static str),
    /// Off, which `--help` describes with this text.
    Off(&'static str),
}

/// How to check a text and store its value.
enum Parser {
    Count(RangeInclusive<usize>, fn(&mut Config, usize)),
    Milliseconds(RangeInclusive<u64>, fn(&mut Config, u64)),
    Other(fn(&mut Config, &str) -> Result<(), String>),
}

/// All settings, in the order of `--help`.
const SETTINGS: &[Setting] = &[
    Setting {
        flag: "database-url",
        variable: "DATABASE_URL",
        default: DefaultValue::Required(
            "mysql://user:password@host:port/db names the bot's database",
        ),
        help: "mysql://user:password@host:port/db, or ...@localhost/db?socket=/path",
        parser: Parser::Other(|config, text| {
            database_url::parse(text).map(|options| config.database = options)
        }),
    },
    Setting {
        flag: "listen",
        variable: "SESSION_LOCK_LISTEN",
        default: DefaultValue::Text(LISTEN_DEFAULT),
        help: "address and port, or unix:/path",
        parser: Parser::Other(|config, text| listen(text).map(|listen| config.listen = listen)),
    },
    Setting {
        flag: "socket-mode",
        variable: "SESSION_LOCK_SOCKET_MODE",
        // The user and the group of the service may connect, and nobody else.
        default: DefaultValue::Text("0660"),
        help: "who may connect to unix:/path, as chmod takes it",
        parser: Parser::Other(|config, text| {
            socket_mode(text).map(|mode| config.socket_mode = mode)
        }),
    },
    Setting {
        flag: "table",
        variable: "SESSION_LOCK_TABLE",
        // The table of the production bot.
        default: DefaultValue::Text("ai_whatsapp_session_nodepath"),
        help: "the lock table",
        parser: Parser::Other(|config, text| table(text).map(|table| config.table = table)),
    },
    Setting {
        flag: "workers",
        variable: "SESSION_LOCK_WORKERS",
        // Few workers make large batches, which cost the database least. On two cores, two workers
        // are slightly faster, but with three, one goes on while two wait for locked rows.
        default: DefaultValue::Text("3"),
        help: "worker threads",
        parser: Parser::Count(1..=WORKERS_MAX, |config, workers| config.workers = workers),
    },
    Setting {
        flag: "api-token",
        variable: API_TOKEN_VARIABLE,
        default: DefaultValue::Off("none"),
        help: "callers must send Authorization: Bearer TOKEN",
        parser: Parser::Other(|config, text| {
            ApiToken::new(text).map(|token| config.api_token = Some(token))
        }),
    },
    Setting {
        flag: "max-hold-ms",
        variable: "SESSION_LOCK_MAX_HOLD_MS",
        // 15 minutes: three times the longest work of a worker seen so far, rounded up generously.
        // A worker that hangs but renews its lease holds a customer up for no longer than this.
        default: DefaultValue::Text("900000"),
        help: "no lease is held longer, however often renewed",
        parser: Parser::Milliseconds(TTL_MIN_MS..=MAX_HOLD_MAX_MS, |config, ms| {
            config.max_hold_ms = ms;
        }),
    },
    Setting {
        flag: "message-retention-ms",
        variable: "SESSION_LOCK_MESSAGE_RETENTION_MS",
        // Eight days: providers deliver a message again for up to seven days.
        default: DefaultValue::Text("691200000"),
        help: "how long answered messages are remembered",
        parser: Parser::Milliseconds(
            MESSAGE_RETENTION_MIN_MS..=MESSAGE_RETENTION_MAX_MS,
            |config, ms| config.message_retention_ms = ms,
        ),
    },
    Setting {
        flag: "time-zone",
        variable: "SESSION_LOCK_TIME_ZONE",
        // The service uses UTC then, but `check` wants the database's own clock to agree.
        default: DefaultValue::Off("+00:00"),
        help: "fixed offset of the database's clock, such as +08:00",
        parser: Parser::Other(|config, text| {
            time_zone(text).map(|offset| config.time_zone = Some(offset))
        }),
    },
];

/// Reads each setting from its flag, or else from its environment variable, or else its default.
/// An error is one line that begins with the variable.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Config, String> {
    let flags: Vec<_> = SETTINGS.iter().map(|setting| setting.flag).collect();
    let flags = Flags::read(arguments, &flags, &[])?;
    if let Some(word) = flags.rest.first() {
        return Err(format!("{} is no option", word.display()));
    }
    // An empty variable in an environment file means "not set". An empty API token is an error,
    // because without a token anybody may take leases.
    let environment = |variable: &str| {
        environment(variable).filter(|value| !value.is_empty() || variable == API_TOKEN_VARIABLE)
    };
    let text =
        |setting: &Setting| flags.get_or_variable(setting.flag, setting.variable, environment);
    let texts = SETTINGS.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let mut config = Config::default();
    for (setting, text) in SETTINGS.iter().zip(&texts) {
        let mut apply = |text: &str| setting.apply(&mut config, text);
        let result = match (text, &setting.default) {
            (Some(text), _) => apply(text),
            (None, DefaultValue::Text(text)) => apply(text),
            (None, DefaultValue::Off(_)) => Ok(()),
            (None, DefaultValue::Required(error)) => Err(format!("is not set: {error}")),
        };
        result.map_err(|error| format!("{} {error}", setting.variable))?;
    }
    Ok(config)
}

/// The lines of `--help` about the settings.
pub fn help() -> String {
    SETTINGS.iter().map(Setting::help).collect()
}

impl Setting {
    fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        match &self.parser {
            Parser::Count(limits, store) => {
                let (least, most) = (limits.start(), limits.end());
                let error = || format!("must be a number from {least} to {most}");
                store(config, number(text, limits).ok_or_else(error)?);
            }
            Parser::Milliseconds(limits, store) => {
                let (least, most) = (limits.start(), limits.end());
                let error = || format!("must be {least}-{most} milliseconds");
                store(config, number(text, limits).ok_or_else(error)?);
            }
            Parser::Other(store) => store(config, text)?,
        }
        Ok(())
    }

    fn help(&self) -> String {
        let limits = match &self.parser {
            Parser::Count(limits, _) => format!(", {}-{}", limits.start(), limits.end()),
            Parser::Milliseconds(limits, _) => format!(", {}-{}", limits.start(), limits.end()),
            Parser::Other(_) => String::new(),
        };
        let default = match self.default {
            DefaultValue::Text(text) | DefaultValue::Off(text) => format!(" [{text}]"),
            DefaultValue::Required(_) => String::new(),
        };
        let Self { flag, variable, help, .. } = self;
        format!("  {variable}, --{flag}\n      {help}{limits}{default}\n")
    }
}

fn number<T: FromStr + PartialOrd>(text: &str, limits: &RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|number| limits.contains(number))
}

/// Parses the address that the service listens on.
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
    mode.ok_or("must be a mode such as 0660: read and write for whom may connect".to_owned())
}

fn table(text: &str) -> Result<String, String> {
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'));
    if is_plain && (1..=TABLE_NAME_MAX_CHARS).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("must be a table name of 1-{TABLE_NAME_MAX_CHARS} letters, digits, _ and $"))
}

/// Accepts the offsets that both MySQL and MariaDB accept.
fn time_zone(text: &str) -> Result<String, String> {
    let is_shaped = text.len() == 6
        && text.starts_with(['+', '-'])
        && text.bytes().skip(1).enumerate().all(|(at, byte)| match at {
            2 => byte == b':',
            _ => byte.is_ascii_digit(),
        });
    // Digits compare as text.
    if is_shaped && (text == "+13:00" || (&text[1..3] <= "12" && &text[4..] <= "59")) {
        return Ok(text.to_owned());
    }
    Err("must be a fixed offset from -12:59 to +13:00, such as +08:00 (not a zone name: daylight saving moves locks by an hour)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: (&str, &str) = ("DATABASE_URL", "mysql://bot:s3cret@localhost/bots");

    fn read(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let variable =
            |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        super::read(flags.iter().map(OsString::from), variable)
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
    fn a_flag_wins_over_the_environment() {
        let environment = [URL, ("SESSION_LOCK_TABLE", "b")];
        let config = read(&["--table", "a", "--workers=3"], &environment).unwrap();
        assert_eq!((config.table.as_str(), config.workers), ("a", 3));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        assert_eq!(read(&[], &[URL, ("SESSION_LOCK_WORKERS", "")]).unwrap().workers, 3);
    }

    #[test]
    fn every_wrong_value_names_its_setting() {
        for (variable, wrong) in [
            ("DATABASE_URL", "postgres://localhost/x"),
            ("DATABASE_URL", "mysql://localhost"),
            ("SESSION_LOCK_LISTEN", "localhost"),
            ("SESSION_LOCK_LISTEN", "unix:run/lock.sock"),
            ("SESSION_LOCK_SOCKET_MODE", "0680"),
            ("SESSION_LOCK_SOCKET_MODE", "066"),
            ("SESSION_LOCK_TABLE", "a b"),
            ("SESSION_LOCK_WORKERS", "0"),
            ("SESSION_LOCK_WORKERS", "65"),
            ("SESSION_LOCK_API_TOKEN", "a b"),
            ("SESSION_LOCK_API_TOKEN", ""),
            ("SESSION_LOCK_MAX_HOLD_MS", "999"),
            ("SESSION_LOCK_MAX_HOLD_MS", "86400001"),
            ("SESSION_LOCK_MESSAGE_RETENTION_MS", "59999"),
            ("SESSION_LOCK_TIME_ZONE", "Europe/Berlin"),
            ("SESSION_LOCK_TIME_ZONE", "+1:00"),
            ("SESSION_LOCK_TIME_ZONE", "+13:30"),
            ("SESSION_LOCK_TIME_ZONE", "-13:00"),
            ("SESSION_LOCK_TIME_ZONE", "+00:60"),
            ("SESSION_LOCK_TIME_ZONE", "+0é:00"),
        ] {
            let line = read(&[], &[(variable, wrong), URL]).err().unwrap();
            let is_one_line = !line.contains('\n');
            assert!(line.starts_with(variable) && is_one_line, "{variable}={wrong}: {line}");
        }
        assert!(read(&[], &[]).err().unwrap().starts_with("DATABASE_URL"));
        assert!(read(&["--tabel=x"], &[URL]).err().unwrap().contains("--tabel"));
        assert!(read(&["x"], &[URL]).is_err());
    }

    #[test]
    fn offsets_are_read_as_the_database_writes_them() {
        for good in ["+00:00", "-00:30", "+08:00", "-12:59", "+13:00"] {
            let config = read(&["--time-zone", good], &[URL]).unwrap();
            assert_eq!(config.time_zone.as_deref(), Some(good));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = read(&["--api-token=t0ken"], &[URL]).unwrap();
        assert_eq!(format!("{:?}", config.api_token), "Some(ApiToken(…))");
        let url = ("DATABASE_URL", "mysql://bot:12?s3cret@localhost/x");
        let line = read(&[], &[url]).err().unwrap();
        assert!(!line.contains("s3cret"), "{line}");
    }
}
