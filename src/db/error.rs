//! Kinds of database errors, and their texts.

use std::fmt;

use super::refusal::{explain, has_answered, is_final, text};
use crate::metrics::METRICS;

/// Errors that are handled differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The connection is lost, and the last statement may have taken effect.
    ConnectionLost,
    /// The database rolled the transaction back to end a deadlock; a retry may succeed.
    Deadlock,
    /// Another transaction held a lock on the row or the table for longer than the lock wait
    /// timeout.
    RowLocked,
    /// A statement of `sql/` failed on purpose: not all leases of a batch were found to release, or
    /// the count of the statement before is unknown.
    GuardFailed,
    /// The column's character set cannot represent a text, so no row can have it.
    Incomparable,
    /// The server accepts no writes now: it is a replica, or a failover is in progress.
    ReadOnly,
    /// Wrong user, password, grants, plugin or certificate: a retry does not help.
    Denied,
    /// A table, a column or a key is not what it was when the table was inspected.
    TableChanged,
    /// The connection to end has already ended, or its number now belongs to a connection of
    /// another user.
    ConnectionGone,
    /// Any other error of the server.
    Refused,
}

/// The label of each kind in the metrics (none if the error is an answer), and its error numbers in
/// MySQL's and MariaDB's documentation.
const KINDS: [(ErrorKind, Option<&str>, &[u16]); 9] = [
    // Shutdown, network failure, failure during COMMIT, interrupted, killed, idle for too long.
    (
        ErrorKind::ConnectionLost,
        Some("lost"),
        &[
            1053, 1152, 1153, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161, 1180, 1317, 1927,
            2006, 2013, 3169, 4031,
        ],
    ),
    (ErrorKind::Deadlock, Some("deadlock"), &[1020, 1213]),
    (ErrorKind::RowLocked, Some("locked"), &[1205, 3572]),
    (ErrorKind::GuardFailed, None, &[1690]),
    (ErrorKind::Incomparable, None, &[1267, 3854]),
    (ErrorKind::ConnectionGone, None, &[1094, 1095]),
    (ErrorKind::ReadOnly, Some("read_only"), &[1290, 1792, 1836]),
    (
        ErrorKind::Denied,
        Some("denied"),
        &[
            1044, 1045, 1049, 1130, 1142, 1143, 1227, 1251, 1275, 1524, 1698, 1820, 1862, 3118,
            3159, 3955, 4151,
        ],
    ),
    // Unknown column, table or key; a column without a default, or too short; a lost tablespace.
    (ErrorKind::TableChanged, Some("refused"), &[1048, 1054, 1146, 1176, 1364, 1406, 1812, 1932]),
];

impl ErrorKind {
    pub fn of(error: &mysql::Error) -> Self {
        let mysql::Error::MySqlError(server) = error else {
            return if is_final(error) { Self::Denied } else { Self::ConnectionLost };
        };
        let known = KINDS.iter().find(|(_, _, numbers)| numbers.contains(&server.code));
        known.map_or(Self::Refused, |(kind, ..)| *kind)
    }

    /// Whether the cause may be a table or a right that has changed.
    pub fn is_about_table(self) -> bool {
        matches!(self, Self::Denied | Self::TableChanged)
    }

    /// Whether the operation may succeed after another server is reached or the table is inspected.
    pub fn needs_verifying(self) -> bool {
        self == Self::ReadOnly || self.is_about_table()
    }

    pub(super) fn count(self) {
        let known = KINDS.iter().find(|(kind, ..)| *kind == self);
        if let Some(label) = known.map_or(Some("refused"), |(_, label, _)| *label) {
            METRICS.database_errors.with_label_values(&[label]).inc();
        }
    }
}

/// The text of an error, as short as possible.
pub fn cause(error: &mysql::Error) -> String {
    /// EAGAIN, with which a socket reports a timeout.
    const TIMED_OUT: &str = "(os error 11)";
    if ErrorKind::of(error) == ErrorKind::RowLocked {
        return "another program holds a database lock".to_owned();
    }
    if let Some((_, text)) = explain(error) {
        return text;
    }
    let text = text(error);
    if text.contains(TIMED_OUT) { "no answer came in time".to_owned() } else { text }
}

/// Why the database cannot be used now.
#[derive(Debug)]
pub struct Unusable {
    pub cause: String,
    /// Whether a server has answered. If not, perhaps no server is running.
    pub has_answered: bool,
}

impl From<mysql::Error> for Unusable {
    fn from(error: mysql::Error) -> Self {
        Self { cause: cause(&error), has_answered: has_answered(&error) }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.has_answered { "cannot be used" } else { "cannot be reached" };
        write!(f, "{what}: {}", self.cause)
    }
}

/// Why this login cannot succeed before somebody changes the configuration: a topic and a text.
pub fn refusal(error: &mysql::Error) -> Option<(&'static str, String)> {
    (ErrorKind::of(error) == ErrorKind::Denied).then(|| {
        explain(error).unwrap_or_else(|| {
            let cause = cause(error);
            ("login", format!("the database refuses this login ({cause}): check user, password, database and grants in DATABASE_URL, and whether it must have require_ssl=true"))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use mysql::DriverError::{OldMysqlPasswordDisabled, TlsNotSupported, UnknownAuthPlugin};
    use mysql::Error::DriverError;

    use super::*;
    use crate::db::refusal::{HOST_BLOCKED, TLS};

    fn server(code: u16) -> mysql::Error {
        let (state, message) = ("HY000".to_owned(), "what the server says".to_owned());
        mysql::MySqlError { state, message, code }.into()
    }

    #[test]
    fn errors_about_tables_and_servers_are_verified() {
        for (code, is_about_table, needs_verifying) in
            [(1142, true, true), (1146, true, true), (1290, false, true), (1205, false, false)]
        {
            let kind = ErrorKind::of(&server(code));
            assert_eq!(kind.is_about_table(), is_about_table, "{code}");
            assert_eq!(kind.needs_verifying(), needs_verifying, "{code}");
        }
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        let plugin = |name: &str| DriverError(UnknownAuthPlugin(name.to_owned()));
        for (error, topic, remedy) in [
            (server(1045), "login", "check user, password"),
            (server(1130), "login", "check user, password"),
            (server(1524), "login", "ALTER USER"),
            (server(3159), TLS, "add require_ssl=true"),
            (DriverError(OldMysqlPasswordDisabled), "login", "the plugin mysql_old_password,"),
            (plugin("auth_gssapi_client"), "login", "the plugin auth_gssapi_client,"),
            (plugin("mysql_clear_password"), "login", "enable_cleartext_plugin=true"),
            (plugin("a\nb"), "login", "the plugin ab,"),
            (DriverError(TlsNotSupported), TLS, "take require_ssl"),
            (
                io::Error::other("invalid peer certificate: UnknownIssuer").into(),
                TLS,
                "root_cert_path",
            ),
        ] {
            let (found, text) = refusal(&error).unwrap();
            assert!(found == topic && text.contains(remedy), "{found} {text}");
        }
        // An administrator may flush the hosts while the service waits.
        assert!(refusal(&server(HOST_BLOCKED)).is_none());
        let blocked = Unusable::from(server(HOST_BLOCKED));
        assert!(blocked.to_string().contains("FLUSH HOSTS"), "{blocked}");
        assert!(blocked.has_answered && Unusable::from(server(1040)).has_answered);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(!Unusable::from(mysql::Error::from(reset)).has_answered);
    }
}
