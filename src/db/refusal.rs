//! Refused connections: the reason why the database refuses a login, or why this side refuses the
//! server, and the remedy.

use std::error::Error;
use std::io;

use mysql::DriverError::{
    CleartextPluginDisabled, ConnectTimeout, CouldNotConnect, OldMysqlPasswordDisabled,
    TlsNotSupported, UnknownAuthPlugin,
};
use mysql::Error::{CodecError, DriverError, IoError, MySqlError};

/// The server's error after `max_connect_errors` failed handshakes from this machine.
pub(super) const HOST_BLOCKED: u16 = 1129;

/// The server quotes values that it refuses. So many digits may contain an owner token.
pub const SECRET_DIGITS: usize = 20;

/// The longest name of a plugin that is shown. The names in MySQL and MariaDB are shorter.
const PLUGIN_NAME_MAX_CHARS: usize = 64;

/// The TLS library's error for a server's certificate that it refuses.
const BAD_CERTIFICATE: &str = "invalid peer certificate";

/// Parts of the TLS library's errors for certificates, and their remedies. The last one matches all
/// other errors.
const CERTIFICATE_REMEDIES: [(&str, &str); 6] = [
    (
        "UnknownIssuer",
        "root_cert_path in DATABASE_URL must name the certificate of the authority that signed it; the certificate that MariaDB creates for itself since 11.4 has no authority, so set ssl_cert and ssl_key there",
    ),
    // The error for an authority with the same name: MySQL gives all authorities that it creates
    // the same name.
    (
        "BadSignature",
        "root_cert_path in DATABASE_URL must name the certificate of the authority that signed it",
    ),
    (
        "not valid for",
        "the host in DATABASE_URL must be a name in the certificate; a certificate that MySQL has created for itself has no name, and needs danger_skip_domain_validation=true",
    ),
    (
        "CaUsedAsEndEntity",
        "it is an authority's own certificate; the server needs a certificate that the authority has signed",
    ),
    ("certificate expired", "the server needs a new one"),
    ("", "check the server's certificate, and root_cert_path in DATABASE_URL"),
];

/// The topic of refusals by TLS. Each refusal counts towards [`HOST_BLOCKED`].
pub const TLS: &str = "tls";

const OTHER_PLUGIN: &str = "on MySQL, ALTER USER ... IDENTIFIED WITH caching_sha2_password BY '...'; on MariaDB, ALTER USER ... IDENTIFIED VIA mysql_native_password USING PASSWORD('...'), or ed25519 or parsec";

/// Whether this side refuses the server, and would refuse it again.
pub(super) fn is_final(error: &mysql::Error) -> bool {
    !matches!(error, MySqlError(_)) && explain(error).is_some()
}

/// The meaning of an error and its remedy: a topic and a text.
pub(super) fn explain(error: &mysql::Error) -> Option<(&'static str, String)> {
    let said = text(error);
    Some(match error {
        DriverError(UnknownAuthPlugin(name)) => ("login", unknown_plugin(name)),
        DriverError(OldMysqlPasswordDisabled) => ("login", unknown_plugin("mysql_old_password")),
        DriverError(CleartextPluginDisabled) => ("login", unknown_plugin("mysql_clear_password")),
        MySqlError(server) if [1275, 1524].contains(&server.code) => {
            ("login", format!("the database refuses this login ({said}): change how the user logs in: {OTHER_PLUGIN}"))
        }
        MySqlError(server) if server.code == HOST_BLOCKED => {
            ("server", format!("the server has blocked this machine after too many failed connections ({said}): run FLUSH HOSTS there (`mariadb-admin flush-hosts`; on MySQL, TRUNCATE TABLE performance_schema.host_cache), and correct the cause, such as root_cert_path in DATABASE_URL"))
        }
        MySqlError(server) if server.code == 3159 => {
            (TLS, format!("the server accepts only connections with TLS ({said}): add require_ssl=true to DATABASE_URL"))
        }
        DriverError(TlsNotSupported) => {
            (TLS, "the server offers no secure connection, and DATABASE_URL requires one: turn TLS on there, or, if nobody can read the network traffic, take require_ssl and root_cert_path out of DATABASE_URL".to_owned())
        }
        _ if said.contains(BAD_CERTIFICATE) => {
            let mut remedies = CERTIFICATE_REMEDIES.iter();
            let (_, remedy) = remedies.find(|(part, _)| said.contains(part))?;
            (TLS, format!("the server's certificate is refused ({said}): {remedy}"))
        }
        #[cfg(feature = "tls")]
        mysql::Error::TlsError(_) => {
            (TLS, format!("TLS cannot be set up ({said}): check the host and root_cert_path in DATABASE_URL"))
        }
        _ => return None,
    })
}

fn unknown_plugin(name: &str) -> String {
    // The server chooses this text, which may contain anything.
    let name: String =
        name.chars().filter(char::is_ascii_graphic).take(PLUGIN_NAME_MAX_CHARS).collect();
    let or_clear = if name == "mysql_clear_password" {
        "; or add enable_cleartext_plugin=true to DATABASE_URL, over TLS or a socket only"
    } else {
        ""
    };
    format!(
        "this user logs in with the plugin {name}, which session-lock does not know: {OTHER_PLUGIN}{or_clear}"
    )
}

/// Whether a server sent anything.
pub(super) fn has_answered(error: &mysql::Error) -> bool {
    // The TLS library refuses the server's data.
    let is_refused = |io: &io::Error| io.kind() == io::ErrorKind::InvalidData;
    match error {
        DriverError(ConnectTimeout | CouldNotConnect(_)) => false,
        // The packet is too short. The connection did not end.
        IoError(io) => is_refused(io) || io.kind() == io::ErrorKind::UnexpectedEof,
        CodecError(codec) => {
            codec.source().and_then(|source| source.downcast_ref()).is_none_or(is_refused)
        }
        _ => true,
    }
}

/// The text of an error, without the driver's words for its kind and without owner tokens.
pub(super) fn text(error: &mysql::Error) -> String {
    match error {
        MySqlError(server) => without_tokens(&server.to_string()),
        IoError(io) => io.to_string(),
        CodecError(codec) => codec.source().map_or_else(|| codec.to_string(), ToString::to_string),
        DriverError(driver) => driver.to_string(),
        #[cfg(feature = "tls")]
        mysql::Error::TlsError(tls) => tls.to_string(),
        other => other.to_string(),
    }
}

/// Replaces everything that may contain an owner token.
fn without_tokens(text: &str) -> String {
    let mut rest = text;
    let mut clean = String::new();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = &rest[start..];
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let is_token = end >= SECRET_DIGITS;
        clean.push_str(&rest[..start]);
        clean.push_str(if is_token { "…" } else { &digits[..end] });
        rest = &digits[end..];
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_contains_an_owner_token() {
        let said = "value: '2000-01-01 00:00:00.000000176043240012345648210000000000000007' is 1";
        let message = format!("{said}, 48210000000000000007");
        let error = mysql::MySqlError { state: "HY000".to_owned(), message, code: 1292 };
        let expected = "ERROR 1292 (HY000): value: '2000-01-01 00:00:00.…' is 1, …";
        assert_eq!(text(&error.into()), expected);
    }
}
