//! The lock table as a store of leases: a batch of operations in, a batch of answers out.
//!
//! Every operation is the same short loop, whatever happens around it:
//!
//! 1. look at the session's row;
//! 2. decide: what was seen either is the answer, or names a write;
//! 3. write, as a compare-and-swap on what was seen, and look again in the same transaction;
//! 4. decide again, from what was seen there.
//!
//! Two writes tell what that second look would show, and go without. A delete: its rows are gone, all
//! of them, or the transaction fails. A claim that was dated: the statement that dates it finds it
//! by its own text, in the row of its session, and says how many it found, and when. It is believed
//! once a look has shown that what it says is so (`BELIEVED_FOR`), and an operation's first time
//! only. So a grant never rests on the absence of an error. A write that lost its race, a deadlock, a
//! connection that died: all lead back to looking.
//!
//! All operations of a batch go through the loop together, one packet to look and one to write.
//! When something goes wrong with them together, each goes alone, and the trouble of one is not
//! the others'. What is remembered may stand in for the first look (`memory`): the lease of an owner
//! who had it from here, or that nobody is known to hold the session.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mysql::{Opts, Row};

use crate::database::{
    Connection, Database, Packet, PacketError, Pooled, Statement, Trouble, Value, Values, cause,
    columns,
};
use crate::lease::{Holding, Id, RowVersion, Session};
use crate::memory::{Memory, Remembered};
use crate::metrics::METRICS;
use crate::operation::{Answer, Claimed, Company, Look, Operation, Seen, StoreError, Task};
use crate::outage::{Identity, Outage};
use crate::statements::{End, Looked, Statements, read_look};
use crate::table::{self, Finding, Messages, Report, Verdict, Writes};

/// For so long after a look has shown that what its statements say of a lease is so, a connection is
/// believed without one: a trigger that is created meanwhile is noticed soon.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// No new packet is sent after this. With the socket's own time-outs on top, every operation ends
/// within 10 s, before a webhook's provider gives up.
const PATIENCE: Duration = Duration::from_secs(4);

/// Rows that one page of the table is read in, in the background or for one device: a millisecond
/// or two of the database's time.
const SCAN_ROWS: u64 = 1_000;

/// Records of answered messages that are deleted in one transaction: its locks are gone within
/// milliseconds, and thousands are forgotten in a second all the same.
const FORGET_RECORDS: u64 = 100;

/// A table of messages that was missing is looked for again after this, when somebody needs it.
const MESSAGES_LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Rows that are watched with one statement: some kilobytes of text, and half of all that may wait.
const WATCH_ROWS: usize = 1_000;

/// What came of an attempt to open the store.
#[derive(Debug)]
pub enum Opened {
    /// It serves; these findings are worth a word.
    Ready(Vec<Finding>),
    /// Not yet, and why; worth another try.
    NotYet(String),
    /// It cannot serve until somebody mends these.
    Unusable(Vec<Finding>),
}

/// Some of the leases that hold now, in the order of their rows.
#[derive(Debug)]
pub struct Page {
    /// The sessions as they are stored, and who holds them.
    pub holdings: Vec<(Session, Holding)>,
    /// Where the next page begins; there is none without.
    pub next: Option<u64>,
}

/// What a sweep did.
#[derive(Debug)]
pub struct Swept {
    /// How many rows it deleted.
    pub rows: u64,
    /// Where the next page begins; there is none without.
    pub next: Option<u64>,
}

/// The lock table behind a pool of connections.
pub struct Store {
    database: Database,
    table_name: String,
    configured_offset: Option<String>,
    opened: OnceLock<Statements>,
    messages: Mutex<(Messages, Instant)>,
    memory: Memory,
}

/// A row of the table's list.
struct ListedRow {
    session: Session,
    is_meant: bool,
    seen: Seen,
}

impl ListedRow {
    fn read(row: Row) -> mysql::Result<Self> {
        let (key, stored, age_us, clock_us, id_prospect, id_device, is_meant) = columns(row)?;
        let session = Session {
            id_device: Id::stored(id_device),
            id_prospect: Id::stored(id_prospect),
        };
        let seen = Seen::new(key, stored, age_us, clock_us);
        Ok(Self {
            session,
            is_meant,
            seen,
        })
    }
}

/// Why a round ended before every task had its answer.
enum Interrupted {
    /// Worth looking again.
    Again(String),
    /// The database does not answer, to anybody.
    Outage(String),
    /// The same would happen again.
    Refused(String),
}

impl Store {
    /// A store that is not open yet, with at most `connections` connections.
    #[must_use]
    pub fn new(
        url: &Opts,
        table_name: &str,
        configured_offset: Option<&str>,
        connections: u32,
    ) -> Self {
        let time_zone = configured_offset.unwrap_or("+00:00");
        Self {
            database: Database::new(url, time_zone, connections),
            table_name: table_name.to_owned(),
            configured_offset: configured_offset.map(str::to_owned),
            opened: OnceLock::new(),
            messages: Mutex::new((Messages::default(), Instant::now())),
            memory: Memory::default(),
        }
    }

    /// Looks at what changes slowly, for the metrics.
    pub fn measure(&self) {
        if let Ok(report) = self.inspect() {
            METRICS.ids_used.set(report.ids_used.unwrap_or_default());
            METRICS
                .clock_difference
                .set(report.clock_difference_s.unwrap_or_default());
        }
    }

    /// Looks at everything that the promises rest on.
    ///
    /// # Errors
    /// If the database cannot be reached; a refused login is a finding.
    pub fn inspect(&self) -> Result<Report, String> {
        let inspected = self.database.connect().and_then(|mut connection| {
            table::inspect(
                &mut connection,
                &self.table_name,
                self.configured_offset.as_deref(),
            )
        });
        inspected.or_else(|error| {
            if Trouble::of(&error) != Trouble::Denied {
                return Err(cause(&error));
            }
            let said = cause(&error);
            let text = format!("the database refuses this login ({said}): check user, password, database and grants in DATABASE_URL");
            let finding = Finding { verdict: Verdict::Problem, topic: "login", text, sql: None };
            Ok(Report { findings: vec![finding], ..Report::default() })
        })
    }

    /// Creates what is missing in the database.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn migrate(&self) -> Result<(), String> {
        let migrate = |mut connection| table::migrate(&mut connection, &self.table_name);
        self.database
            .connect()
            .and_then(migrate)
            .map_err(|error| cause(&error))
    }

    /// Opens the store, if the database is there and its table is usable.
    pub fn open(&self) -> Opened {
        let report = match self.inspect() {
            Ok(report) => report,
            Err(cause) => {
                return Opened::NotYet(format!("the database cannot be reached: {cause}"));
            }
        };
        match &report.table {
            None => Opened::Unusable(report.of(Verdict::Problem).cloned().collect()),
            Some(_) if report.writes == Writes::ReadOnly => {
                Opened::NotYet("the database is read-only".to_owned())
            }
            Some(table) => {
                *self.messages() = (report.messages.clone(), Instant::now());
                self.opened.get_or_init(|| Statements::new(table));
                METRICS.database_up.set(1);
                Opened::Ready(report.of(Verdict::Warning).cloned().collect())
            }
        }
    }

    /// Whether messages can be recorded: whether their table is as it must be. One that was not may
    /// have been mended since.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn keeps_messages(&self) -> Result<(), String> {
        let mut known = self.messages();
        let Messages::Refused(why) = known.0.clone() else {
            // What is not known yet, the request itself will show.
            return Ok(());
        };
        if known.1.elapsed() < MESSAGES_LOOK_PAUSE {
            return Err(why);
        }
        known.1 = Instant::now();
        drop(known);
        let look = |statements: &Statements| {
            let mut connection = self.database.connect()?;
            table::inspect_messages(&mut connection, &statements.table)
        };
        let Some(Ok(messages)) = self.opened.get().map(look) else {
            return Err(why);
        };
        self.messages().0 = messages.clone();
        match messages {
            Messages::Refused(why) => Err(why),
            Messages::Kept | Messages::Unknown => Ok(()),
        }
    }

    fn messages(&self) -> MutexGuard<'_, (Messages, Instant)> {
        // Nothing that could panic happens under it.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether leases could be written now.
    ///
    /// # Errors
    /// What is in the way.
    pub fn ready(&self) -> Result<(), StoreError> {
        self.query(&self.statements()?.may_delete, &[]).map(drop)
    }

    /// One name for all spellings of a session that the table takes for the same.
    #[must_use]
    pub fn name(&self, session: &Session) -> (String, String) {
        let (device, prospect) = (session.id_device.as_str(), session.id_prospect.as_str());
        // Before the store is open, no operation succeeds, so any name will do.
        self.opened.get().map_or_else(
            || (device.to_owned(), prospect.to_owned()),
            |Statements { table, .. }| {
                (
                    table.device_case.fold(device),
                    table.prospect_case.fold(prospect),
                )
            },
        )
    }

    /// A page of the leases that hold now, those of one device if it is named.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn list(&self, device: Option<&Id>, after: u64, limit: u64) -> Result<Page, StoreError> {
        let mut page = Page {
            holdings: Vec::new(),
            next: None,
        };
        // Of one device's rows, a page of this size may have none.
        let rows = if device.is_some() {
            SCAN_ROWS.max(limit)
        } else {
            limit
        };
        let device = device.map_or(Value::Null, |id| Value::Text(id.as_str()));
        let values = [
            ("id_device", device),
            ("after", Value::Number(after)),
            // One more, to see whether the table goes on.
            ("limit", Value::Number(rows + 1)),
        ];
        let looked_at = Instant::now();
        let mut found = self.query(&self.statements()?.list, &values)?;
        let goes_on = found.len() as u64 > rows;
        found.truncate(usize::try_from(rows).unwrap_or(usize::MAX));
        let mut found = found.into_iter();
        for row in found.by_ref() {
            let row =
                ListedRow::read(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
            page.next = Some(row.seen.key);
            if let (true, Some(holding)) = (row.is_meant, row.seen.holding(looked_at)) {
                page.holdings.push((row.session, holding));
                if page.holdings.len() as u64 == limit {
                    break;
                }
            }
        }
        if !goes_on && found.len() == 0 {
            page.next = None;
        }
        Ok(page)
    }

    /// Which of these rows are not as they were seen any more.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn changed(&self, rows: &[RowVersion]) -> Result<Vec<RowVersion>, StoreError> {
        let watch = &self.statements()?.watch;
        let mut changed = Vec::new();
        for rows in rows.chunks(WATCH_ROWS) {
            let keys: Vec<_> = rows.iter().map(|row| Value::Number(row.key)).collect();
            let mut unchanged = HashSet::new();
            for row in self.query(watch, &[("keys", Value::List(&keys))])? {
                let (key, stored): (u64, Vec<u8>) =
                    columns(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
                unchanged.insert(RowVersion::new(key, &stored));
            }
            changed.extend(rows.iter().filter(|row| !unchanged.contains(row)));
        }
        Ok(changed)
    }

    /// Deletes the rows of crashed holders behind `after` that expired long enough ago, one page
    /// of the table at a time; how many went, and where the next page begins.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn sweep(&self, after: u64) -> Result<Swept, StoreError> {
        let statements = self.statements()?;
        let values = [
            ("id_device", Value::Null),
            ("after", Value::Number(after)),
            ("limit", Value::Number(SCAN_ROWS)),
        ];
        let found = self.query(&statements.list, &values)?;
        let is_full = found.len() as u64 == SCAN_ROWS;
        let mut swept = Swept {
            rows: 0,
            next: None,
        };
        for row in found {
            let ListedRow { seen, session, .. } =
                ListedRow::read(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
            swept.next = Some(seen.key);
            if seen.is_forgotten() {
                // One at a time, so that it is in nobody's way.
                let mut packet = Packet::default();
                let end = End {
                    session: &session,
                    key: seen.key,
                    seen: &seen.stored,
                };
                statements.append_deletes(&[end], &mut packet);
                // One that somebody holds a lock on is for the next sweep.
                let Ok(mut connection) = self.pooled(Instant::now()) else {
                    break;
                };
                let deleted = connection.run(&packet).unwrap_or_default();
                swept.rows += deleted.iter().map(|reply| reply.affected).sum::<u64>();
            }
        }
        if !is_full {
            swept.next = None;
        }
        Ok(swept)
    }

    /// Deletes some of the records of messages that were committed longer ago than this; how many.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn forget_messages(&self, kept: Duration) -> Result<u64, StoreError> {
        let statements = self.statements()?;
        if self.messages().0 != Messages::Kept {
            return Ok(0);
        }
        let kept_us = u64::try_from(kept.as_micros()).unwrap_or(u64::MAX);
        let values = [
            ("kept_us", Value::Number(kept_us)),
            ("limit", Value::Number(FORGET_RECORDS)),
        ];
        // No commit is ever in the way of these: a message so old is not delivered any more.
        let mut packet = Packet::default();
        packet.push("START TRANSACTION");
        for row in self.query(&statements.old_messages, &values)? {
            let (prospect, device, message_id, committed_us): (String, String, Vec<u8>, u64) =
                columns(row).map_err(|error| StoreError::Unavailable(cause(&error)))?;
            let values = [
                ("id_prospect", Value::Text(&prospect)),
                ("id_device", Value::Text(&device)),
                ("message_id", Value::Bytes(&message_id)),
                ("committed_us", Value::Number(committed_us)),
            ];
            statements.forget_message.write(&mut packet, &values);
        }
        let found = packet.len() > 1;
        packet.push("COMMIT");
        let deleted = if found {
            let mut connection = self.pooled(Instant::now())?;
            connection.run(&packet).map_err(|failed| {
                // Its transaction ends with it.
                connection.discard();
                StoreError::Unavailable(cause(&failed.error))
            })?
        } else {
            Vec::new()
        };
        Ok(deleted.iter().map(|reply| reply.affected).sum())
    }

    /// Runs a statement that reads, again if the connection turns out to be dead.
    fn query(&self, sql: &Statement, values: &Values) -> Result<Vec<Row>, StoreError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let error = match self.pooled(until)?.query(sql, values) {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            match Trouble::of(&error) {
                // No row can have a text that its column cannot hold.
                Trouble::Incomparable => return Ok(Vec::new()),
                Trouble::Lost if Instant::now() < until => {}
                _ => return Err(StoreError::Unavailable(cause(&error))),
            }
        }
    }

    fn pooled(&self, until: Instant) -> Result<Pooled, StoreError> {
        let open = self.database.outage().wait_until_open(until);
        open.and_then(|()| self.database.pooled())
            .map_err(StoreError::Unavailable)
    }

    /// What is known of whether the database answers.
    #[must_use]
    pub fn outage(&self) -> &Outage {
        self.database.outage()
    }

    /// Waits for an outage, at most so long, and takes a step towards its end.
    pub fn tend(&self, patience: Duration) {
        self.database.tend(patience);
    }

    fn statements(&self) -> Result<&Statements, StoreError> {
        let not_yet =
            || StoreError::Unavailable("it has not been reached since the start".to_owned());
        self.opened.get().ok_or_else(not_yet)
    }

    /// Runs the operations, in one transaction as long as nothing gets in their way, and answers
    /// each in its place.
    #[must_use]
    pub fn run(&self, operations: &[Operation]) -> Vec<Result<Answer, StoreError>> {
        let statements = match self.statements() {
            Ok(statements) => statements,
            Err(error) => return operations.iter().map(|_| Err(error.clone())).collect(),
        };
        let max_key = statements.table.max_key;
        let started = Instant::now();
        let until = started + PATIENCE;
        let mut tasks: Vec<_> = operations
            .iter()
            .map(|operation| Task::new(operation, started))
            .collect();
        for task in &mut tasks {
            let Remembered { look, key } = self.memory.take(task.operation);
            task.spare_key = key;
            if let Some(look) = look {
                task.plan(look, started, max_key);
            }
        }
        let mut lost = None;
        let mut last_cause = String::new();
        'rounds: while tasks.iter().any(Task::is_open) && Instant::now() < until {
            let open = tasks.iter_mut().filter(|task| task.is_open());
            let (together, mut alone): (Vec<_>, Vec<_>) =
                open.partition(|task| task.company == Company::Welcome);
            // The table of messages may be what is in the way: those without one go first.
            alone.sort_by_key(|task| task.operation.message_id().is_some());
            let groups = alone.into_iter().map(|task| vec![task]);
            for mut group in [together].into_iter().chain(groups) {
                if group.is_empty() {
                    continue;
                }
                // Each alone may take long to see that the database hangs.
                if Instant::now() >= until {
                    break;
                }
                match self.round(statements, &mut group, &mut lost, until) {
                    Ok(()) => {}
                    Err(Interrupted::Again(cause)) => last_cause = cause,
                    Err(Interrupted::Outage(cause)) => {
                        last_cause = cause;
                        break 'rounds;
                    }
                    Err(Interrupted::Refused(cause)) => {
                        group.retain(|task| task.is_open());
                        match &mut group[..] {
                            [task] => task.fail(StoreError::Unavailable(cause)),
                            // One's trouble, with its message table for one, is not the others'.
                            tasks => {
                                for task in tasks {
                                    task.company = Company::Alone;
                                }
                                last_cause = cause;
                            }
                        }
                    }
                }
            }
        }
        for task in &mut tasks {
            self.memory.learn(task, max_key);
        }
        tasks
            .into_iter()
            .map(|task| task.finish(&last_cause))
            .collect()
    }

    /// One look at all these tasks that have nothing to write yet, and the writes that come of it.
    fn round(
        &self,
        statements: &Statements,
        tasks: &mut [&mut Task],
        lost: &mut Option<Identity>,
        until: Instant,
    ) -> Result<(), Interrupted> {
        let outage = self.outage();
        outage.wait_until_open(until).map_err(Interrupted::Outage)?;
        if let Some(connection) = *lost {
            let ended = outage.wait_until_ended(connection, until);
            ended.map_err(Interrupted::Again)?;
            *lost = None;
        }
        let mut connection = self.database.pooled().map_err(Interrupted::Again)?;
        if Instant::now() >= until {
            return Err(Interrupted::Again("it answers too slowly".to_owned()));
        }
        if !connection.is_fresh() {
            for task in tasks.iter_mut().filter(|task| task.is_remembered()) {
                task.drop_memory();
            }
        }
        let mut unseen: Vec<_> = tasks
            .iter_mut()
            .filter(|task| task.write.is_none())
            .map(|task| &mut **task)
            .collect();
        if !unseen.is_empty() {
            look(&mut connection, statements, &mut unseen)?;
        }
        loop {
            let mut writing: Vec<_> = tasks
                .iter_mut()
                .filter(|task| task.write.is_some())
                .map(|task| &mut **task)
                .collect();
            if writing.is_empty() || Instant::now() >= until {
                return Ok(());
            }
            if let Err(failed) = write(&mut connection, statements, &mut writing) {
                return Err(recover(
                    &mut connection,
                    failed,
                    statements,
                    &mut writing,
                    lost,
                ));
            }
        }
    }
}

/// Looks at the rows of all these tasks, in one packet, and lets each decide.
fn look(
    connection: &mut Connection,
    statements: &Statements,
    tasks: &mut [&mut Task],
) -> Result<(), Interrupted> {
    let looked_at = Instant::now();
    let max_key = statements.table.max_key;
    let mut packet = Packet::default();
    statements.append_look(tasks, &mut packet);
    let looked = match connection.run(&packet) {
        Ok(replies) => read_look(tasks, &mut replies.into_iter())
            .map_err(|error| Interrupted::Refused(cause(&error)))?,
        Err(PacketError { error, .. }) => {
            return match (Trouble::of(&error), tasks) {
                (Trouble::Incomparable, [task]) => {
                    // No row can have these ids.
                    task.decide(Look::default(), looked_at, max_key);
                    Ok(())
                }
                (Trouble::Lost | Trouble::Deadlock, _) => Err(Interrupted::Again(cause(&error))),
                (Trouble::Locked, [task]) => {
                    task.fail(StoreError::Locked);
                    Err(Interrupted::Again(cause(&error)))
                }
                _ => Err(Interrupted::Refused(cause(&error))),
            };
        }
    };
    match looked {
        Looked::Each(looks) => {
            for (task, look) in tasks.iter_mut().zip(looks) {
                task.decide(look, looked_at, max_key);
            }
            Ok(())
        }
        Looked::Mixed => Err(separate(tasks, "ids that compare alike".to_owned())),
    }
}

/// Runs the planned writes of all these tasks and a look at what came of them, as one transaction
/// in one packet, and lets each task decide from what it saw there.
fn write(
    connection: &mut Connection,
    statements: &Statements,
    tasks: &mut [&mut Task],
) -> Result<(), PacketError> {
    let mut packet = Packet::default();
    packet.push("START TRANSACTION");
    let places = statements.append_writes(tasks, &mut packet);
    let look_at = packet.len();
    let calendar = connection
        .calendar
        .filter(|(_, learned_at)| learned_at.elapsed() < BELIEVED_FOR)
        .map(|(calendar, _)| calendar);
    // These are told apart without another look.
    let is_told =
        |task: &Task| task.only_deletes() || (calendar.is_some() && task.first_acquires());
    let mut looking: Vec<_> = tasks
        .iter_mut()
        .filter(|task| !is_told(task))
        .map(|task| &mut **task)
        .collect();
    if !looking.is_empty() {
        statements.append_look(&looking, &mut packet);
    }
    packet.push("COMMIT");
    let sent_at = Instant::now();
    // Nothing is believed before the COMMIT, the packet's last reply, has come back.
    let mut replies = connection.run(&packet)?;
    let unreadable = |error| PacketError {
        is_last: true,
        error,
    };
    let mut looked = replies.split_off(look_at).into_iter();
    let looked = match &mut looking[..] {
        [] => Looked::Each(Vec::new()),
        looking => read_look(looking, &mut looked).map_err(unreadable)?,
    };
    let claimed = places.claimed(tasks, &replies, connection.id_step);
    let changed = places.changed(tasks, &replies);
    let mut looks = match looked {
        Looked::Each(looks) => looks.into_iter(),
        Looked::Mixed => {
            // What was written is found by looking again.
            for task in tasks.iter_mut() {
                task.lose_write();
                task.company = Company::Alone;
            }
            return Ok(());
        }
    };
    for (task, (changed, claimed)) in tasks.iter_mut().zip(changed.into_iter().zip(claimed)) {
        let row = |calendar| match claimed {
            Claimed::Dated(dated) => task.dated_row(dated, calendar),
            Claimed::Missed | Claimed::Unclear(_) => None,
        };
        let look = if task.only_deletes() {
            (changed > 0).then(Look::default)
        } else if let Some(calendar) = calendar.filter(|_| task.first_acquires()) {
            let Some(row) = row(calendar) else {
                task.doubt_write(claimed);
                continue;
            };
            Some(Look {
                row: Some(row),
                record: None,
            })
        } else {
            let look = looks.next();
            if let Some(seen) = look.as_ref().and_then(|look| look.row.as_ref())
                && let Some(calendar) = seen.calendar()
                && row(calendar).is_some_and(|row| row.is_same(seen))
            {
                connection.calendar = Some((calendar, sent_at));
            }
            look
        };
        task.wrote(changed, claimed, sent_at);
        // Without a look it comes again, before anybody is told that it is lost.
        if let Some(look) = look {
            task.decide(look, sent_at, statements.table.max_key);
        }
    }
    Ok(())
}

/// Brings the connection and the tasks into a state from which looking again is safe.
fn recover(
    connection: &mut Connection,
    failed: PacketError,
    statements: &Statements,
    tasks: &mut [&mut Task],
    lost: &mut Option<Identity>,
) -> Interrupted {
    let PacketError { is_last, error } = failed;
    let trouble = Trouble::of(&error);
    let cause = cause(&error);
    // A COMMIT that fails has perhaps taken effect all the same.
    if trouble == Trouble::Lost
        || (is_last && !matches!(trouble, Trouble::Deadlock | Trouble::Locked))
    {
        *lost = Some(connection.lose());
        for task in tasks {
            task.lose_write();
        }
        return Interrupted::Again(cause);
    }
    // The transaction may still be open with the earlier rows in it.
    let mut rollback = Packet::default();
    rollback.push("ROLLBACK");
    let rolled_back = connection.run(&rollback);
    let keys: Vec<_> = tasks.iter().map(|task| task.written_key()).collect();
    let is_remembered = tasks.iter().any(|task| task.is_remembered());
    for task in tasks.iter_mut() {
        task.drop_write();
    }
    if rolled_back.is_err() {
        // It ends with its connection, which may take hours to notice that ours is closed.
        connection.lose();
        return Interrupted::Again(cause);
    }
    match (trouble, tasks) {
        (Trouble::Deadlock, _) => {
            METRICS.deadlock_retries.inc();
            Interrupted::Again(cause)
        }
        (Trouble::Locked, tasks @ [_, _, ..]) => {
            separate_locked(connection, statements, tasks, &keys, cause)
        }
        (Trouble::Locked, [task]) => {
            task.fail(StoreError::Locked);
            Interrupted::Again(cause)
        }
        (Trouble::NotAllChanged, [_, _, ..]) if is_remembered => Interrupted::Again(cause),
        (Trouble::NotAllChanged, tasks @ [_, _, ..]) => separate(tasks, cause),
        (Trouble::IdsExhausted, [task]) => {
            task.try_random_id(statements.table.max_key);
            Interrupted::Again(cause)
        }
        _ => {
            // Read-only after a failover, for one: the next connection may reach another server.
            connection.discard();
            Interrupted::Refused(cause)
        }
    }
}

/// Ends those of these tasks whose row, by its key, another program holds a lock on, and has all go
/// alone if it cannot be told whose that is: a row that is being inserted cannot be asked for.
fn separate_locked(
    connection: &mut Connection,
    statements: &Statements,
    tasks: &mut [&mut Task],
    keys: &[Option<u64>],
    cause: String,
) -> Interrupted {
    let known: Vec<_> = keys.iter().copied().flatten().collect();
    if known.is_empty() {
        return separate(tasks, cause);
    }
    let mut packet = Packet::default();
    statements.append_unlocked(&known, &mut packet);
    let Ok(replies) = connection.run(&packet) else {
        return separate(tasks, cause);
    };
    let rows = replies.into_iter().flat_map(|reply| reply.rows);
    let unlocked: HashSet<u64> = rows
        .filter_map(|row| columns(row).ok().map(|(key,)| key))
        .collect();
    let is_locked = |key: &Option<u64>| key.is_some_and(|key| !unlocked.contains(&key));
    if !keys.iter().any(is_locked) {
        return separate(tasks, cause);
    }
    for (task, key) in tasks.iter_mut().zip(keys) {
        if is_locked(key) {
            task.fail(StoreError::Locked);
        }
    }
    Interrupted::Again(cause)
}

/// Has each of these go alone from now on: one of them has a trouble that is not the others'.
fn separate(tasks: &mut [&mut Task], cause: String) -> Interrupted {
    for task in tasks {
        task.company = Company::Alone;
    }
    Interrupted::Again(cause)
}
