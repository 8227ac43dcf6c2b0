//! Settings: environment variables and flags become a checked [`Config`], or one clear line.

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use mysql::{Opts, OptsBuilder};

use crate::lease::TTL_MIN_MS;

/// Where bots on the same machine reach the service; nothing outside can.
const LISTEN_DEFAULT: &str = "127.0.0.1:7099";

/// What a socket file's path follows.
pub const UNIX_PREFIX: &str = "unix:";

/// The user and the group of the service may connect to its socket file, nobody else.
const SOCKET_MODE_DEFAULT: u32 = 0o660;

/// The longest path that fits a socket's address, less what [`crate::http::listener`] adds for a moment.
const SOCKET_PATH_MAX_BYTES: usize = 96;

/// The production bot's table.
const TABLE_DEFAULT: &str = "ai_whatsapp_session_nodepath";

/// Worker threads, each with one database connection. Few take much together, which costs the
/// database least: two are the fastest on two cores, by a little, and a third goes on when two wait
/// for a row that another program has locked.
const WORKERS_DEFAULT: usize = 3;

/// Each worker holds a database connection, of which MySQL has 151 for everybody by default.
const WORKERS_MAX: usize = 64;

/// A worker's heartbeat cannot hold a customer for longer than this: three times the longest
/// work seen in the field, rounded up generously.
const MAX_HOLD_DEFAULT_MS: u64 = 15 * 60_000;

/// A day: nobody waits longer for an answer in a chat, however often the lease is renewed.
const MAX_HOLD_MAX_MS: u64 = 24 * 3_600_000;

/// How long it is remembered that a message is answered: providers deliver one again for up to
/// seven days.
const MESSAGE_RETENTION_DEFAULT_MS: u64 = 8 * 24 * 3_600_000;

/// A redelivery a minute later is the least that a record is for.
const MESSAGE_RETENTION_MIN_MS: u64 = 60_000;

/// Ten years: longer than any bot remembers.
const MESSAGE_RETENTION_MAX_MS: u64 = 3_650 * 24 * 3_600_000;

/// The longest name of a table in MySQL and MariaDB.
const TABLE_NAME_MAX_CHARS: usize = 64;

/// Everything that can be set. Not printable: it holds secrets.
#[derive(Clone)]
pub struct Config {
    pub database: Opts,
    pub listen: Listen,
    pub socket_mode: u32,
    pub table: String,
    pub workers: usize,
    pub api_token: Option<ApiToken>,
    /// Longest hold of a lease in milliseconds: `SESSION_LOCK_MAX_HOLD_MS`.
    pub max_hold_ms: u64,
    /// How long records of answered messages are kept, in milliseconds:
    /// `SESSION_LOCK_MESSAGE_RETENTION_MS`.
    pub message_retention_ms: u64,
    pub time_zone: Option<String>,
}

/// Where the service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// The bearer token that callers must present. Never shown.
#[derive(Clone)]
pub struct ApiToken(String);

impl ApiToken {
    /// Whether the caller presented this token; takes equally long for every wrong one of its
    /// length.
    pub fn accepts(&self, presented: &str) -> bool {
        let (expected, presented) = (self.0.as_bytes(), presented.as_bytes());
        let differences = expected.iter().zip(presented).fold(0, |sum, (a, b)| sum | (a ^ b));
        expected.len() == presented.len() && differences == 0
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(…)")
    }
}

/// One setting: its environment variable, its flag, and what it is, for `--help`.
#[derive(Clone, Copy)]
pub struct Setting {
    pub variable: &'static str,
    /// The flag, without its dashes.
    pub flag: &'static str,
    pub help: &'static str,
}

/// All settings, in the order of `--help`.
pub const SETTINGS: [Setting; 9] = [
    Setting {
        variable: "DATABASE_URL",
        flag: "database-url",
        help: "mysql://user:password@host:port/db, or ...@localhost/db?socket=/path",
    },
    Setting {
        variable: "SESSION_LOCK_LISTEN",
        flag: "listen",
        help: "address and port, or unix:/path [127.0.0.1:7099]",
    },
    Setting {
        variable: "SESSION_LOCK_SOCKET_MODE",
        flag: "socket-mode",
        help: "who may connect to unix:/path, as chmod takes it [0660]",
    },
    Setting {
        variable: "SESSION_LOCK_TABLE",
        flag: "table",
        help: "the lock table [ai_whatsapp_session_nodepath]",
    },
    Setting { variable: "SESSION_LOCK_WORKERS", flag: "workers", help: "worker threads, 1-64 [3]" },
    Setting {
        variable: "SESSION_LOCK_API_TOKEN",
        flag: "api-token",
        help: "callers must send Authorization: Bearer TOKEN [none]",
    },
    Setting {
        variable: "SESSION_LOCK_MAX_HOLD_MS",
        flag: "max-hold-ms",
        help: "no lease is held longer, however often renewed, 1000-86400000 [900000]",
    },
    Setting {
        variable: "SESSION_LOCK_MESSAGE_RETENTION_MS",
        flag: "message-retention-ms",
        help: "how long answered messages are remembered, 60000-315360000000 [691200000]",
    },
    Setting {
        variable: "SESSION_LOCK_TIME_ZONE",
        flag: "time-zone",
        help: "fixed offset of the database's clock, such as +08:00 [+00:00]",
    },
];

impl Config {
    /// Reads the flags, then the environment for what no flag set.
    pub fn read(
        flags: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let given = Given::read(flags, environment)?;
        let database = given.parse("DATABASE_URL", database)?.ok_or(
            "DATABASE_URL is not set: mysql://user:password@host:port/db names the bot's database",
        )?;
        Ok(Self {
            database,
            listen: given.parse("SESSION_LOCK_LISTEN", listen)?.unwrap_or(listen(LISTEN_DEFAULT)?),
            socket_mode: given
                .parse("SESSION_LOCK_SOCKET_MODE", socket_mode)?
                .unwrap_or(SOCKET_MODE_DEFAULT),
            table: given
                .parse("SESSION_LOCK_TABLE", table)?
                .unwrap_or_else(|| TABLE_DEFAULT.to_owned()),
            workers: given.parse("SESSION_LOCK_WORKERS", workers)?.unwrap_or(WORKERS_DEFAULT),
            api_token: given.parse("SESSION_LOCK_API_TOKEN", api_token)?,
            max_hold_ms: given
                .parse("SESSION_LOCK_MAX_HOLD_MS", |text| {
                    milliseconds(text, TTL_MIN_MS..=MAX_HOLD_MAX_MS)
                })?
                .unwrap_or(MAX_HOLD_DEFAULT_MS),
            message_retention_ms: given
                .parse("SESSION_LOCK_MESSAGE_RETENTION_MS", |text| {
                    milliseconds(text, MESSAGE_RETENTION_MIN_MS..=MESSAGE_RETENTION_MAX_MS)
                })?
                .unwrap_or(MESSAGE_RETENTION_DEFAULT_MS),
            time_zone: given.parse("SESSION_LOCK_TIME_ZONE", time_zone)?,
        })
    }
}

/// What the commands that talk to a server are told.
pub struct ClientConfig {
    pub url: String,
    pub api_token: Option<String>,
    pub flags: Flags,
}

impl ClientConfig {
    /// Reads the flags, of which `own` are the command's, then the environment.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
        own: &[&str],
    ) -> Result<Self, String> {
        let flags = Flags::read(arguments, &[own, &["url", "api-token"]].concat())?;
        let variable = |name: &str| {
            let value = environment(name).filter(|value| !value.is_empty());
            value.map(|value| utf8(name, value)).transpose()
        };
        let url = match flags.get("url").map(str::to_owned).or(variable("SESSION_LOCK_URL")?) {
            Some(url) if url.starts_with("http://") || url.starts_with(UNIX_PREFIX) => url,
            Some(_) => {
                return Err("SESSION_LOCK_URL must begin with http:// or unix:/".to_owned());
            }
            None => {
                let address = variable("SESSION_LOCK_LISTEN")?;
                let listen = listen(address.as_deref().unwrap_or(LISTEN_DEFAULT))
                    .map_err(|wrong| format!("SESSION_LOCK_LISTEN {wrong}"))?;
                match listen {
                    Listen::Tcp(mut address) => {
                        if address.ip().is_unspecified() {
                            address.set_ip(Ipv4Addr::LOCALHOST.into());
                        }
                        format!("http://{address}")
                    }
                    Listen::Unix(_) => listen.to_string(),
                }
            }
        };
        let api_token =
            flags.get("api-token").map(str::to_owned).or(variable("SESSION_LOCK_API_TOKEN")?);
        Ok(Self { url, api_token, flags })
    }
}

/// A command's flags, as they were given.
pub struct Flags {
    given: Vec<(String, Option<String>)>,
    /// What is no flag: what follows `--`.
    pub rest: Vec<OsString>,
}

impl Flags {
    /// Reads flags that are among `known`. Those that end in `!` take no value.
    fn read(arguments: impl IntoIterator<Item = OsString>, known: &[&str]) -> Result<Self, String> {
        let mut flags = Self { given: Vec::new(), rest: Vec::new() };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
            let flag = match argument {
                lexopt::Arg::Long(flag) => flag.to_owned(),
                lexopt::Arg::Value(value) => {
                    flags.rest.push(value);
                    continue;
                }
                lexopt::Arg::Short(_) => return Err(argument.unexpected().to_string()),
            };
            let switch = format!("{flag}!");
            let value = if known.contains(&switch.as_str()) {
                None
            } else if known.contains(&flag.as_str()) {
                let value = parser.value().map_err(|error| error.to_string())?;
                Some(utf8(&format!("--{flag}"), value)?)
            } else {
                return Err(format!(
                    "there is no option --{flag} here; session-lock --help lists them"
                ));
            };
            flags.given.push((flag, value));
        }
        Ok(flags)
    }

    /// The value of a flag.
    pub fn get(&self, flag: &str) -> Option<&str> {
        let given = self.given.iter().rev().find(|(name, _)| name == flag);
        given.and_then(|(_, value)| value.as_deref())
    }

    /// The value of a flag that there must be.
    pub fn need(&self, flag: &str) -> Result<String, String> {
        self.get(flag).map(str::to_owned).ok_or_else(|| format!("--{flag} is missing"))
    }

    /// Whether a flag without a value was given.
    pub fn has(&self, flag: &str) -> bool {
        self.given.iter().any(|(name, _)| name == flag)
    }

    /// The value of a flag that is a duration, such as 1500ms, 30s or 2m.
    pub fn duration(&self, flag: &str) -> Result<Option<Duration>, String> {
        self.get(flag)
            .map(|text| {
                duration(text)
                    .ok_or_else(|| format!("--{flag} must be a duration such as 1500ms, 30s or 2m"))
            })
            .transpose()
    }
}

fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u32 = text[..unit].parse().ok()?;
    match &text[unit..] {
        "ms" => Some(Duration::from_millis(number.into())),
        "s" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_secs(u64::from(number) * 60)),
        _ => None,
    }
}

/// The text of each setting that was given, in the order of [`SETTINGS`].
struct Given([Option<String>; SETTINGS.len()]);

impl Given {
    fn read(
        flags: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let flags = Flags::read(flags, &SETTINGS.map(|setting| setting.flag))?;
        if let Some(word) = flags.rest.first() {
            return Err(format!("{} is no option", word.display()));
        }
        let mut given = SETTINGS.map(|setting| flags.get(setting.flag).map(str::to_owned));
        for (at, setting) in SETTINGS.iter().enumerate() {
            // An empty variable in an environment file means: not set. Without a token anybody may take
            // leases, so that is said by leaving it out.
            let counts = |value: &OsString| {
                !value.is_empty() || setting.variable == "SESSION_LOCK_API_TOKEN"
            };
            let value = environment(setting.variable).filter(counts);
            if let (None, Some(value)) = (&given[at], value) {
                given[at] = Some(utf8(setting.variable, value)?);
            }
        }
        Ok(Self(given))
    }

    fn parse<T>(
        &self,
        variable: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let at = SETTINGS.iter().position(|setting| setting.variable == variable);
        let text = at.and_then(|at| self.0[at].as_deref());
        text.map(parse).transpose().map_err(|wrong| format!("{variable} {wrong}"))
    }
}

fn utf8(variable: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|_| format!("{variable} is not valid UTF-8"))
}

// The URL's own error could show a piece of the password.
fn database(text: &str) -> Result<Opts, String> {
    let form = "must look like mysql://user:password@host:port/db; percent-encode special characters in the password";
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    let (ours, theirs): (Vec<_>, Vec<_>) = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .partition(|pair| pair.starts_with("require_ssl="));
    let options =
        Opts::from_url(&format!("{address}?{}", theirs.join("&"))).map_err(|_| form.to_owned())?;
    let options = tls(options, &ours)?;
    match options.get_db_name() {
        Some(name) if !name.is_empty() => Ok(options),
        _ => {
            Err("names no database: it must look like mysql://user:password@host:port/db"
                .to_owned())
        }
    }
}

/// The options with TLS, if the URL asks for it.
fn tls(options: Opts, require_ssl: &[&str]) -> Result<Opts, String> {
    let is_required = match require_ssl {
        [] | ["require_ssl=false"] => options.get_ssl_opts().is_some(),
        ["require_ssl=true"] => true,
        _ => return Err("has a require_ssl that is neither true nor false".to_owned()),
    };
    if !is_required {
        return Ok(options);
    }
    if !cfg!(feature = "tls") {
        return Err("asks for TLS, which this binary was built without".to_owned());
    }
    let ssl = options.get_ssl_opts().cloned().unwrap_or_default();
    if let Some(path) = ssl.root_cert_path()
        && let Err(error) = std::fs::read(path)
    {
        return Err(format!(
            "names a root_cert_path that cannot be read: {} ({error})",
            path.display()
        ));
    }
    Ok(OptsBuilder::from_opts(options).ssl_opts(ssl).into())
}

fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
        return if path.starts_with('/') && path.len() <= SOCKET_PATH_MAX_BYTES {
            Ok(Listen::Unix(path.into()))
        } else {
            Err(format!(
                "must have an absolute path of at most {SOCKET_PATH_MAX_BYTES} bytes after {UNIX_PREFIX}"
            ))
        };
    }
    text.parse().map(Listen::Tcp).map_err(|_| {
        format!("must be an IP address and a port, such as {LISTEN_DEFAULT}, or unix:/path")
    })
}

fn socket_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| (0o600..=0o777).contains(mode)).ok_or_else(|| {
        "must be a mode such as 0660: read and write for whom may connect".to_owned()
    })
}

fn table(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'));
    if plain && (1..=TABLE_NAME_MAX_CHARS).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("must be a table name of 1-64 letters, digits, _ and $".to_owned())
    }
}

fn workers(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=WORKERS_MAX).contains(number));
    number.ok_or_else(|| format!("must be a number from 1 to {WORKERS_MAX}"))
}

fn api_token(text: &str) -> Result<ApiToken, String> {
    if text.is_empty() {
        Err("must not be empty; leave it out to serve without a token".to_owned())
    } else if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        // What a header can carry.
        Ok(ApiToken(text.to_owned()))
    } else {
        Err("must be printable ASCII without blanks".to_owned())
    }
}

fn milliseconds(text: &str, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|ms| allowed.contains(ms));
    let (least, most) = allowed.into_inner();
    number.ok_or_else(|| format!("must be {least}-{most} milliseconds"))
}

fn time_zone(text: &str) -> Result<String, String> {
    let number = |range: std::ops::Range<usize>| {
        text.get(range).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let hours = number(1..3).and_then(|digits| digits.parse::<u8>().ok());
    let minutes = number(4..6).and_then(|digits| digits.parse::<u8>().ok());
    let shaped = text.len() == 6 && text.starts_with(['+', '-']) && text.get(3..4) == Some(":");
    match (hours, minutes) {
        // What both databases accept: -12:59 to +13:00 at least.
        (Some(hours), Some(0..=59)) if shaped && (hours <= 12 || text == "+13:00") => Ok(text.to_owned()),
        _ => Err("must be a fixed offset from -12:59 to +13:00, such as +08:00 (not a zone name: daylight saving moves locks by an hour)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: (&str, &str) = ("DATABASE_URL", "mysql://bot:s3cret@localhost/bots");

    fn read(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let variable =
            |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        Config::read(flags.iter().map(OsString::from), variable)
    }

    #[test]
    fn a_database_url_is_all_that_is_needed() {
        let config = read(&[], &[URL]).unwrap();
        assert_eq!(config.listen.to_string(), LISTEN_DEFAULT);
        assert_eq!(config.table, TABLE_DEFAULT);
        assert_eq!((config.workers, config.max_hold_ms), (WORKERS_DEFAULT, MAX_HOLD_DEFAULT_MS));
        assert!(config.api_token.is_none() && config.time_zone.is_none());
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let config =
            read(&["--table", "a", "--workers=3"], &[URL, ("SESSION_LOCK_TABLE", "b")]).unwrap();
        assert_eq!((config.table.as_str(), config.workers), ("a", 3));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let config = read(&[], &[URL, ("SESSION_LOCK_WORKERS", "")]).unwrap();
        assert_eq!(config.workers, WORKERS_DEFAULT);
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
            ("SESSION_LOCK_TIME_ZONE", "+00:60"),
        ] {
            let line = read(&[], &[(variable, wrong), URL]).err().unwrap();
            assert!(
                line.starts_with(variable) && !line.contains('\n'),
                "{variable}={wrong}: {line}"
            );
        }
        assert!(read(&[], &[]).err().unwrap().starts_with("DATABASE_URL"));
        assert!(read(&["--tabel=x"], &[URL]).err().unwrap().contains("--tabel"));
        assert!(read(&["x"], &[URL]).is_err());
    }

    #[test]
    fn offsets_are_read_as_the_database_writes_them() {
        for good in ["+00:00", "-00:30", "+08:00", "-12:59", "+13:00"] {
            assert_eq!(
                read(&["--time-zone", good], &[URL]).unwrap().time_zone.as_deref(),
                Some(good)
            );
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let environment = [URL, ("SESSION_LOCK_API_TOKEN", "t0ken")];
        let config = read(&[], &environment).unwrap();
        assert!(!format!("{:?}", config.api_token).contains("t0ken"));
        let line =
            read(&[], &[("DATABASE_URL", "mysql://bot:12?s3cret@localhost/x")]).err().unwrap();
        assert!(!line.contains("s3cret"), "{line}");
    }

    #[test]
    fn only_the_whole_api_token_is_accepted() {
        let token = ApiToken("abc".to_owned());
        assert!(token.accepts("abc"));
        for wrong in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!token.accepts(wrong), "{wrong:?}");
        }
    }
}
