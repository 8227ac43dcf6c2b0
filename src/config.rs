//! The settings of the service, read and checked by `cli::settings`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use mysql::Opts;

/// What the path of a Unix socket follows, in a listen address and in a server's URL.
pub const UNIX_PREFIX: &str = "unix:";

/// Every setting. It has no `Debug`, because it holds secrets. The default is only what
/// `cli::settings` starts from.
#[derive(Default)]
pub struct Config {
    pub database: Opts,
    pub listen: Listen,
    /// The permissions of the socket file.
    pub socket_mode: u32,
    pub table: String,
    pub workers: usize,
    pub api_token: Option<ApiToken>,
    /// Longest hold of a lease, in milliseconds.
    pub max_hold_ms: u64,
    /// How long records of answered messages are kept, in milliseconds.
    pub message_retention_ms: u64,
    /// Offset of the database's clock from UTC, such as `+08:00`.
    pub time_zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Default for Listen {
    /// Any free port, for programs on this machine only.
    fn default() -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, 0).into())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// The bearer token that callers must present. It has no `Debug`, so that no log shows it.
#[derive(Clone)]
pub struct ApiToken(String);

impl ApiToken {
    /// A token that an HTTP header can carry.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("must not be empty; leave it out to serve without a token".to_owned())
        } else if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be printable ASCII without blanks".to_owned())
        }
    }

    /// Whether the caller presented this token. Takes the same time for every wrong token of the
    /// right length.
    pub fn accepts(&self, presented: &str) -> bool {
        let (expected, presented) = (self.0.as_bytes(), presented.as_bytes());
        let differences = expected.iter().zip(presented).fold(0, |sum, (a, b)| sum | (a ^ b));
        expected.len() == presented.len() && differences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_api_token_is_accepted() {
        let token = ApiToken::new("abc").unwrap();
        assert!(token.accepts("abc"));
        for wrong in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!token.accepts(wrong), "{wrong:?}");
        }
    }
}
