//! The flags of a command, as they were given.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::settings::{LISTEN_DEFAULT, listen};
use crate::config::{Listen, UNIX_PREFIX};

pub struct Flags {
    /// Each flag, with its value unless it is a switch.
    given: Vec<(String, Option<String>)>,
    /// The arguments that are not flags, such as those after `--`.
    pub rest: Vec<OsString>,
}

impl Flags {
    /// Reads flags that take a value, and switches that take none.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        with_value: &[&str],
        switches: &[&str],
    ) -> Result<Self, String> {
        let mut flags = Self { given: Vec::new(), rest: Vec::new() };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
            match argument {
                lexopt::Arg::Value(value) => flags.rest.push(value),
                lexopt::Arg::Long(flag) if switches.contains(&flag) => {
                    flags.given.push((flag.to_owned(), None));
                }
                lexopt::Arg::Long(flag) if with_value.contains(&flag) => {
                    let flag = flag.to_owned();
                    let value = parser.value().map_err(|error| error.to_string())?;
                    let value = utf8(&format!("--{flag}"), value)?;
                    flags.given.push((flag, Some(value)));
                }
                lexopt::Arg::Long(flag) => {
                    return Err(format!(
                        "there is no option --{flag} here; session-lock --help lists them"
                    ));
                }
                lexopt::Arg::Short(_) => return Err(argument.unexpected().to_string()),
            }
        }
        Ok(flags)
    }

    /// The value of a flag. The last one counts.
    pub fn get(&self, flag: &str) -> Option<&str> {
        let given = self.given.iter().rev().find(|(name, _)| name == flag);
        given.and_then(|(_, value)| value.as_deref())
    }

    /// The value of a flag, or else of an environment variable.
    pub fn get_or_variable(
        &self,
        flag: &str,
        variable: &str,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<String>, String> {
        match self.get(flag) {
            Some(text) => Ok(Some(text.to_owned())),
            None => environment(variable).map(|value| utf8(variable, value)).transpose(),
        }
    }

    /// The value of a flag that must be given.
    pub fn need(&self, flag: &str) -> Result<String, String> {
        self.get(flag).map(str::to_owned).ok_or_else(|| format!("--{flag} is missing"))
    }

    /// Whether a switch was given.
    pub fn has(&self, switch: &str) -> bool {
        self.given.iter().any(|(name, _)| name == switch)
    }

    /// The value of a flag that is a duration, such as 1500ms, 30s or 2m.
    pub fn duration(&self, flag: &str) -> Result<Option<Duration>, String> {
        let error = || format!("--{flag} must be a duration such as 1500ms, 30s or 2m");
        self.get(flag).map(|text| duration(text).ok_or_else(error)).transpose()
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

fn utf8(name: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|_| format!("{name} is not valid UTF-8"))
}

/// What the commands that talk to a server are told.
pub struct ClientConfig {
    pub url: String,
    pub api_token: Option<String>,
    pub flags: Flags,
}

impl ClientConfig {
    /// Reads the flags, of which some are the command's own, then the environment.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
        with_value: &[&str],
        switches: &[&str],
    ) -> Result<Self, String> {
        let flags =
            Flags::read(arguments, &[with_value, &["url", "api-token"]].concat(), switches)?;
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let url = match flags.get_or_variable("url", "SESSION_LOCK_URL", environment)? {
            Some(url) if url.starts_with("http://") || url.starts_with(UNIX_PREFIX) => url,
            Some(_) => return Err("SESSION_LOCK_URL must begin with http:// or unix:/".to_owned()),
            None => {
                let address =
                    flags.get_or_variable("listen", "SESSION_LOCK_LISTEN", environment)?;
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
            flags.get_or_variable("api-token", "SESSION_LOCK_API_TOKEN", environment)?;
        Ok(Self { url, api_token, flags })
    }
}
