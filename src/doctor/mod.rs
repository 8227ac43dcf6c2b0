//! Checks the database server, the lock table and the table of messages: what leases rely on, what
//! is wrong, and the SQL that repairs it. Never alters an existing table. Writes one record of a
//! message, and deletes it, to find out whether writes end.
//!
//! `facts` and `rights` read everything; `findings`, `shape` and `keys` say what it means.
//! `test_write` writes a lease and a record, and rolls them back.

mod definition;
mod engines;
mod facts;
mod findings;
mod keys;
mod migrate;
mod rights;
mod shape;
mod test_write;

use std::fmt;

use crate::db::{
    Connection, ErrorKind, MESSAGE_TABLE, Packet, PacketError, Statement, Table, Unusable, Value,
};
use crate::lease::OwnerToken;

pub use migrate::{Migrated, migrate};
pub use test_write::try_writes;

use facts::{Facts, TableFacts};
use rights::{LEASE_STATEMENTS, MESSAGE_STATEMENTS, Rights};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Leases work, but an operator should check this.
    Warning,
    /// Leases would not work or would not hold, so `serve` refuses to start.
    Problem,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// The result of one check. Displayed as one line.
#[derive(Clone, Debug)]
pub struct Finding {
    pub verdict: Verdict,
    pub topic: &'static str,
    pub text: String,
    /// The SQL that repairs it: one statement, or several with semicolons between them.
    pub sql: Option<String>,
}

fn found(verdict: Verdict, topic: &'static str, text: &str, sql: Option<String>) -> Vec<Finding> {
    vec![Finding { verdict, topic, text: text.to_owned(), sql }]
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<12} {}", self.verdict, self.topic, self.text)?;
        match &self.sql {
            Some(sql) => write!(f, ": {sql};"),
            None => Ok(()),
        }
    }
}

/// Whether the server accepts writes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    #[default]
    Accepted,
    /// The server is a replica, or a failover is in progress.
    ReadOnly,
    /// A write did not end in time.
    Hang,
}

/// Whether answered messages can be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    /// Not checked yet.
    #[default]
    Unknown,
    Usable,
    /// They cannot. The text says what is wrong, and the remedy.
    Refused(String),
}

/// The result of all checks.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
    /// `None` if there is a problem other than a read-only server or its time zone.
    pub table: Option<Table>,
    pub messages: Messages,
    pub writes: Writes,
    /// The used share of the table's ids, from 0 to 1.
    pub ids_used: Option<f64>,
    /// The database's clock minus this machine's, in seconds.
    pub clock_difference_s: Option<f64>,
    /// The server's own time zone minus the configured one, in minutes.
    pub zone_difference_minutes: i64,
}

impl Report {
    /// The report on a server that cannot be reached or used.
    pub fn unreachable(unusable: &Unusable) -> Self {
        let hint =
            if unusable.has_answered { "" } else { "; is it running, and DATABASE_URL right?" };
        Self::refused("server", format!("{unusable}{hint}"))
    }

    /// A report with a single finding, for a server that refuses the connection.
    pub fn refused(topic: &'static str, text: String) -> Self {
        let finding = Finding { verdict: Verdict::Problem, topic, text, sql: None };
        Self { findings: vec![finding], ..Self::default() }
    }

    /// Whether the server refused the connection, so that nothing was inspected.
    pub fn is_refused(&self) -> bool {
        self.clock_difference_s.is_none()
    }

    /// What makes the table unusable. (A time zone only matters at the start.)
    pub fn why_unusable(&self) -> String {
        let problems = self.of(Verdict::Problem);
        let problems = problems.filter(|problem| problem.topic != findings::TIME_ZONE);
        problems.map(|problem| problem.text.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// Whether the server's time zone allows a service to start.
    pub fn has_usable_zone(&self) -> bool {
        self.of(Verdict::Problem).all(|finding| finding.topic != findings::TIME_ZONE)
    }

    /// The findings with this verdict.
    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.verdict == verdict)
    }
}

/// Checks the server and the lock table called `name`. `configured_offset` is the time zone that
/// the operator has set, such as `+02:00`. Fails if the database does not answer.
pub fn inspect(
    connection: &mut Connection,
    name: &str,
    configured_offset: Option<&str>,
) -> mysql::Result<Report> {
    let mut facts = Facts::read(connection, name, configured_offset)?;
    // On a table without a usable primary key, no statement can be tried.
    if let Some(table) = facts.lock_table() {
        let is_sound = findings::is_usable(&findings::all(&facts));
        let mut rights = Rights::read(connection, LEASE_STATEMENTS, name, &table, is_sound)?;
        if connection.is_read_only()? {
            rights.writes = Writes::ReadOnly;
        }
        if rights.is_readable {
            facts.read_rows(connection, &table)?;
        }
        facts.rights = Some(rights);
        facts.messages = inspect_messages(connection, &table)?;
        if let (Some(rights), Messages::Usable) = (&mut facts.rights, &facts.messages)
            && rights.writes == Writes::Accepted
            && hangs(connection)
        {
            rights.writes = Writes::Hang;
        }
    }
    let findings = findings::all(&facts);
    let table = facts.lock_table();
    Ok(Report {
        ids_used: table.as_ref().map(Table::ids_used),
        table: table.filter(|_| findings::is_usable(&findings)),
        writes: facts.writes(),
        clock_difference_s: Some(facts.clock_difference_s()),
        zone_difference_minutes: facts.zone_difference_minutes(),
        messages: facts.messages,
        findings,
    })
}

/// Whether the server does not finish a write: a cluster without its quorum, or a server with a full
/// disk, accepts statements and then waits in `COMMIT`. Writes and deletes a record of a message. If
/// the result is true, the connection is lost.
fn hangs(connection: &mut Connection) -> bool {
    let token = OwnerToken::draw();
    let values = [
        ("id_prospect", Value::Text("session-lock check")),
        ("id_device", Value::Text("session-lock check")),
        ("message_id", Value::Bytes(token.secret().as_bytes())),
        ("owner_token", Value::Bytes(b"")),
        ("committed_us", Value::Number(0)),
        ("rows", Value::Number(1)),
    ];
    let mut packet = Packet::default();
    packet.push("START TRANSACTION");
    for file in [
        include_str!("../../sql/check/write_record.sql"),
        include_str!("../../sql/message/forget.sql"),
        // A record that a trigger has changed must not stay.
        include_str!("../../sql/lease/all_released.sql"),
    ] {
        Statement::new(file, &[]).write(&mut packet, &values);
    }
    packet.push("COMMIT");
    match connection.run(&packet) {
        // Any error of the server is an answer.
        Err(PacketError { error, .. })
            if ErrorKind::of(&error) == ErrorKind::ConnectionLost
                && !matches!(error, mysql::Error::MySqlError(_)) =>
        {
            connection.give_up();
            true
        }
        // An open transaction ends with this connection, which is not the pool's.
        Ok(_) | Err(_) => false,
    }
}

/// Checks whether answered messages can be recorded, which leases do not need. Fails if the
/// database does not answer.
pub fn inspect_messages(connection: &mut Connection, table: &Table) -> mysql::Result<Messages> {
    let found = TableFacts::read(connection, MESSAGE_TABLE)?;
    let mut wrong = findings::wrong_message_table(found.as_ref(), table);
    if wrong.is_none() {
        let rights = Rights::read(connection, MESSAGE_STATEMENTS, MESSAGE_TABLE, table, true)?;
        wrong = findings::wrong_message_rights(&rights);
    }
    Ok(wrong.map_or(Messages::Usable, |wrong| {
        Messages::Refused(format!("answered messages cannot be recorded: {wrong}"))
    }))
}
