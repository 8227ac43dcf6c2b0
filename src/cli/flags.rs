//! The flags of a command, as they were given.

use std::ffi::OsString;
use std::time::Duration;

use super::Failure;

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
    pub fn need(&self, flag: &str) -> Result<String, Failure> {
        let error = || Failure::usage(format!("--{flag} is missing"));
        self.get(flag).map(str::to_owned).ok_or_else(error)
    }

    /// Whether a switch was given.
    pub fn has(&self, switch: &str) -> bool {
        self.given.iter().any(|(name, _)| name == switch)
    }

    /// The value of a flag that is a duration, such as 1500ms, 30s or 2m.
    pub fn duration(&self, flag: &str) -> Result<Option<Duration>, Failure> {
        let error =
            || Failure::usage(format!("--{flag} must be a duration such as 1500ms, 30s or 2m"));
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
