//! What an error of the database means for what comes next.

use crate::metrics::METRICS;

/// The kinds of errors that are handled differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The connection is gone; whether the last statement took effect is unknown.
    ConnectionLost,
    /// The database rolled the transaction back to end a deadlock; the same again may well succeed.
    Deadlock,
    /// Another transaction held a lock on the row or the table for longer than the lock wait timeout.
    RowLocked,
    /// Some of the leases were not there to be released: `sql/lease/all_released.sql`.
    NotAllReleased,
    /// A text cannot be compared with the column's character set, so no row can have it.
    Incomparable,
    /// The server takes no writes at present: a replica, or a failover under way.
    ReadOnly,
    /// User, password or right: nothing that time mends.
    Denied,
    /// Any other error of the server.
    Refused,
}

/// The server's error numbers, as MySQL and MariaDB document them, and the word for each kind in the
/// metrics; none for what is an answer rather than an error.
const KINDS: [(ErrorKind, Option<&str>, &[u16]); 7] = [
    // Shutdown, network, in the middle of a COMMIT, interrupted, killed, idle for too long.
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
    (ErrorKind::NotAllReleased, None, &[1690]),
    (ErrorKind::Incomparable, None, &[1267, 3854]),
    (ErrorKind::ReadOnly, Some("read_only"), &[1290, 1792, 1836]),
    (
        ErrorKind::Denied,
        Some("denied"),
        &[1044, 1045, 1049, 1142, 1143, 1227, 1251, 1698, 1820, 3118, 4151],
    ),
];

impl ErrorKind {
    /// The kind of an error.
    pub fn of(error: &mysql::Error) -> Self {
        let mysql::Error::MySqlError(server) = error else {
            return Self::ConnectionLost;
        };
        let known = KINDS.iter().find(|(_, _, numbers)| numbers.contains(&server.code));
        known.map_or(Self::Refused, |(kind, ..)| *kind)
    }

    /// Counts an error of this kind.
    pub(super) fn count(self) {
        let known = KINDS.iter().find(|(kind, ..)| *kind == self);
        if let Some(word) = known.map_or(Some("refused"), |(_, word, _)| *word) {
            METRICS.database_errors.with_label_values(&[word]).inc();
        }
    }
}

/// What went wrong, in the database's words.
pub fn cause(error: &mysql::Error) -> String {
    /// EAGAIN, which is how a socket reports a timeout.
    const TIMED_OUT: &str = "(os error 11)";
    if ErrorKind::of(error) == ErrorKind::RowLocked {
        return "another program holds a database lock".to_owned();
    }
    let text = match error {
        mysql::Error::MySqlError(server) => server.to_string(),
        mysql::Error::IoError(io) => io.to_string(),
        mysql::Error::CodecError(codec) => codec.to_string(),
        mysql::Error::DriverError(driver) => driver.to_string(),
        other => other.to_string(),
    };
    if text.contains(TIMED_OUT) {
        return "no answer came in time".to_owned();
    }
    text
}
