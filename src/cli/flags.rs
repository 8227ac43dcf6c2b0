//! Reads the flags of a command.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use lexopt::Arg;

use super::Failure;

pub struct Flags {
    /// The value of each given flag; empty for a switch.
    given: HashMap<String, String>,
    /// The arguments that are not flags, such as those after `--`.
    pub rest: Vec<OsString>,
}

impl Flags {
    /// Reads flags that take a value, and switches that take none.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        with_value: &[&str],
        switches: &[&str],
    ) -> Result<Self, Failure> {
        let mut flags = Self { given: HashMap::new(), rest: Vec::new() };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(Failure::usage)? {
            let flag = match argument {
                Arg::Value(value) => {
                    flags.rest.push(value);
                    continue;
                }
                Arg::Long(flag) => flag.to_owned(),
                Arg::Short(_) => return Err(Failure::usage(argument.unexpected())),
            };
            let value = if with_value.contains(&flag.as_str()) {
                utf8(&format!("--{flag}"), parser.value().map_err(Failure::usage)?)?
            } else if switches.contains(&flag.as_str()) {
                String::new()
            } else {
                let error = format!("unknown option --{flag}");
                return Err(Failure::usage(error + "; session-lock --help lists the options"));
            };
            flags.given.insert(flag, value);
        }
        Ok(flags)
    }

    /// The last value of a flag.
    pub fn get(&self, flag: &str) -> Option<&str> {
        self.given.get(flag).map(String::as_str)
    }

    /// The value of a flag, or of an environment variable if the flag is missing.
    pub fn get_or_variable(
        &self,
        flag: &str,
        variable: &str,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<String>, Failure> {
        match self.get(flag) {
            Some(text) => Ok(Some(text.to_owned())),
            None => environment(variable).map(|value| utf8(variable, value)).transpose(),
        }
    }

    pub fn need(&self, flag: &str) -> Result<&str, Failure> {
        self.get(flag).ok_or_else(|| Failure::usage(format!("--{flag} is missing")))
    }

    pub fn duration(&self, flag: &str) -> Result<Option<Duration>, Failure> {
        let error = format!("--{flag} must be a duration such as 1500ms, 30s or 2m");
        let parse = |text| parse_duration(text).ok_or_else(|| Failure::usage(error));
        self.get(flag).map(parse).transpose()
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number = number.parse::<u32>().ok()?.into();
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        _ => None,
    }
}

fn utf8(name: &str, value: OsString) -> Result<String, Failure> {
    value.into_string().map_err(|_| Failure::usage(format!("{name} is not valid UTF-8")))
}
