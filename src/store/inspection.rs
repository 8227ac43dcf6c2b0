//! The state of the server and its tables. They are inspected at the start, each minute, and when
//! the database refuses a statement because of a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::Store;
use super::packet::Statements;
use super::spelling::Spellings;
use crate::db::{self, Connection, ErrorKind, HANGING_WRITES, Packet, Unusable, cause};
use crate::doctor::{self, Finding, Messages, Report, Verdict, Writes};
use crate::metrics::METRICS;

/// Shortest interval between inspections of a table that is missing or wrong.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The result of [`Store::open`].
#[derive(Debug)]
pub enum Opened {
    Ready,
    NotYet(String),
    Unusable(Vec<Finding>),
}

/// The last inspection.
pub(super) struct Inspection {
    at: Instant,
    messages: Messages,
    /// When the message table was last inspected because a request needed it.
    messages_at: Instant,
    /// Why no lease can be written, until the table is inspected again.
    problem: Option<String>,
    /// Whether a table may have changed since the inspection.
    is_outdated: bool,
    /// The topics of the warnings and problems that it found.
    warned: Vec<&'static str>,
}

impl Default for Inspection {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            messages: Messages::default(),
            messages_at: Instant::now(),
            problem: None,
            is_outdated: false,
            warned: Vec::new(),
        }
    }
}

impl Store {
    /// Inspects everything that the guarantees depend on.
    pub fn inspect(&self) -> Result<Report, Unusable> {
        if let Some(cause) = self.database.health().cause() {
            // Each inspection of a server that does not finish writes would leave a connection
            // behind.
            return Err(Unusable { cause, has_answered: false });
        }
        let inspected = self.database.connect().and_then(|mut db| self.inspect_on(&mut db));
        inspected.or_else(|error| match db::refusal(&error) {
            Some((topic, text)) => Ok(Report::refused(topic, text)),
            None => Err(error.into()),
        })
    }

    /// Like [`Store::inspect`], and also tries to write a lease and a record of a message.
    pub fn check(&self) -> Result<Report, Unusable> {
        let mut report = self.inspect()?;
        if let (Some(table), Writes::Accepted) = (&report.table, report.writes) {
            let mut connection = self.database.connect()?;
            let tried = doctor::try_writes(&mut connection, table, &report.messages);
            report.findings.extend(tried);
        }
        Ok(report)
    }

    fn inspect_on(&self, connection: &mut Connection) -> mysql::Result<Report> {
        doctor::inspect(connection, &self.table_name, self.configured_offset.as_deref())
    }

    /// Opens the store if the database can be reached and its table is usable.
    pub fn open(&self) -> Opened {
        let report = match self.inspect() {
            Ok(report) => report,
            Err(unusable) => return Opened::NotYet(format!("the database {unusable}")),
        };
        if report.table.is_none() || !report.has_usable_zone() {
            return Opened::Unusable(report.of(Verdict::Problem).cloned().collect());
        }
        let adopted = self.database.connect().map_err(|error| cause(&error));
        if let Err(cause) = adopted.and_then(|mut connection| self.adopt(&report, &mut connection))
        {
            return Opened::NotYet(cause);
        }
        METRICS.database_up.set(1);
        self.log_new_warnings(&report);
        Opened::Ready
    }

    /// Continues with the tables as this report describes them. The error says why no lease can be
    /// written.
    fn adopt(&self, report: &Report, connection: &mut Connection) -> Result<(), String> {
        let Some(table) = &report.table else {
            return Err(report.why_unusable());
        };
        match report.writes {
            Writes::Accepted => {}
            Writes::ReadOnly => return Err("the database is read-only".to_owned()),
            Writes::Hang => {
                return Err(format!("the database does not finish writes: {HANGING_WRITES}"));
            }
        }
        self.inspection.lock().messages = report.messages.clone();
        let before = self.opened();
        if before.as_ref().is_none_or(|before| !before.table.is_like(table)) {
            let spellings = Spellings::load(connection, table).map_err(|error| cause(&error))?;
            let server_zone = match before {
                Some(before) => {
                    info!("the lock table has changed; continuing with its new definition");
                    before.has_server_zone
                }
                None => report.zone_difference_minutes == 0,
            };
            let statements = Statements::new(table, spellings, server_zone);
            *self.opened.write() = Some(Arc::new(statements));
        }
        Ok(())
    }

    /// Requests an inspection of the tables, one of which may have changed.
    pub(super) fn suspect_tables(&self) {
        self.inspection.lock().is_outdated = true;
        self.database.health().suspect();
    }

    /// Inspects what changes slowly or without an error: some metrics, the server's settings, and
    /// the tables.
    pub fn measure(&self) {
        let (Ok(report), Some(statements)) = (self.inspect(), self.opened()) else { return };
        if report.is_refused() {
            // No health check reports this while connections of the pool still work.
            return self.log_new_warnings(&report);
        }
        METRICS.ids_used.set(report.ids_used.unwrap_or_default());
        METRICS.clock_difference.set(report.clock_difference_s.unwrap_or_default());
        // If the zones never agreed, the operator has set the one that old programs use.
        let left = if statements.has_server_zone { report.zone_difference_minutes } else { 0 };
        METRICS.zone_difference.set(left * 60);
        match (&report.table, report.writes) {
            (Some(table), Writes::Accepted) => {
                if statements.table.is_like(table) {
                    statements.ids.keep_below(table.next_id);
                    self.inspection.lock().messages = report.messages.clone();
                } else {
                    self.suspect_tables();
                }
                self.log_new_warnings(&report);
            }
            // A failover is under way. An inspection of each server would make it last longer.
            (_, Writes::ReadOnly) => self.database.health().suspect_all_connections(),
            // The health check logs the reason.
            (None, _) | (_, Writes::Hang) => self.suspect_tables(),
        }
    }

    /// Logs the warnings and problems whose topics the previous inspection did not report.
    fn log_new_warnings(&self, report: &Report) {
        let serious = report.findings.iter().filter(|finding| finding.verdict != Verdict::Good);
        let topics = serious.clone().map(|finding| finding.topic).collect();
        let before = std::mem::replace(&mut self.inspection.lock().warned, topics);
        for finding in serious.filter(|finding| !before.contains(&finding.topic)) {
            warn!("{} {}", finding.topic, finding.text);
        }
    }

    /// Waits until a health check is due, and runs it.
    pub fn check_health(&self) {
        self.database.check_health(|connection| self.verify(connection));
    }

    /// Whether leases can be written on this connection; the error says why not. Tables that may
    /// have changed are inspected.
    fn verify(&self, connection: &mut Connection) -> Result<(), String> {
        let Some(statements) = self.opened() else {
            // The sweeper opens the store.
            return Ok(());
        };
        if !self.is_outdated()? {
            let mut packet = Packet::for_writable_server();
            statements.may_write.write(&mut packet, &[]);
            let Err(failed) = connection.run(&packet) else { return Ok(()) };
            if !ErrorKind::of(&failed.error).is_about_table() {
                return Err(cause(&failed.error));
            }
        }
        {
            let mut inspection = self.inspection.lock();
            inspection.at = Instant::now();
            // A table that changes from now on is inspected again.
            inspection.is_outdated = false;
        }
        let inspected = self.inspect_on(connection).map_err(|error| cause(&error));
        let adopted = inspected.and_then(|report| self.adopt(&report, connection));
        let mut inspection = self.inspection.lock();
        inspection.is_outdated |= adopted.is_err();
        inspection.problem = adopted.clone().err();
        adopted
    }

    /// Whether the tables must be inspected. The error is the problem that an inspection found a
    /// moment ago.
    fn is_outdated(&self) -> Result<bool, String> {
        let inspection = self.inspection.lock();
        match &inspection.problem {
            Some(problem) if inspection.at.elapsed() < RETRY_INTERVAL => Err(problem.clone()),
            _ => Ok(inspection.is_outdated),
        }
    }

    /// Whether messages can be recorded. The error says what is wrong with their table. If the
    /// table was wrong, it is inspected again, because it may have been repaired since.
    pub fn check_message_table(&self) -> Result<(), String> {
        let mut inspection = self.inspection.lock();
        let Messages::Refused(why) = inspection.messages.clone() else {
            // If the table has not been inspected yet, the request itself will show whether it is
            // usable.
            return Ok(());
        };
        if inspection.messages_at.elapsed() < RETRY_INTERVAL {
            return Err(why);
        }
        inspection.messages_at = Instant::now();
        drop(inspection);
        let inspect = |statements: Arc<Statements>| {
            let mut connection = self.database.connect()?;
            doctor::inspect_messages(&mut connection, &statements.table)
        };
        let Some(Ok(messages)) = self.opened().map(inspect) else {
            return Err(why);
        };
        self.inspection.lock().messages = messages.clone();
        match messages {
            Messages::Refused(why) => Err(why),
            Messages::Usable | Messages::Unknown => Ok(()),
        }
    }

    /// Whether the message table was usable at the last inspection.
    pub(super) fn message_table_was_usable(&self) -> bool {
        self.inspection.lock().messages == Messages::Usable
    }
}
