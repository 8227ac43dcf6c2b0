//! The statements of an old program, which checks the row, upserts it, and deletes it, without any
//! token.

use mysql::prelude::Queryable;

use super::{Session, TABLE, write};

/// How old a row must be before an old program locks the session.
const HELD_S: i64 = 30;

/// Reads the age of a session's row in seconds: `None` if there is no row, or if it has no date.
pub fn age_s(conn: &mut mysql::Conn, session: &Session) -> Option<i64> {
    let sql =
        format!("SELECT TIMESTAMPDIFF(SECOND, timestamp, NOW()) FROM {TABLE} WHERE {session}");
    let age_s: Option<Option<i64>> = conn.query_first(sql).unwrap();
    age_s.flatten()
}

/// Whether the session is held for an old program.
pub fn is_held(conn: &mut mysql::Conn, session: &Session) -> bool {
    age_s(conn, session).is_some_and(|age_s| age_s < HELD_S)
}

/// Runs the old program's upsert; `timestamp` is an SQL expression.
pub fn upsert_sql(session: &Session, timestamp: &str) -> String {
    let Session { device, prospect } = session;
    format!(
        "INSERT INTO {TABLE} (id_prospect, id_device, timestamp) VALUES ('{prospect}', '{device}', {timestamp}) \
         ON DUPLICATE KEY UPDATE timestamp = VALUES(timestamp)"
    )
}

pub fn upsert(conn: &mut mysql::Conn, session: &Session, timestamp: &str) {
    write(conn, &upsert_sql(session, timestamp));
}

pub fn delete(conn: &mut mysql::Conn, session: &Session) {
    write(conn, &format!("DELETE FROM {TABLE} WHERE {session}"));
}
