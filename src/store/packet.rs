//! Operations as packets of the statements in `sql/`.
//!
//! A packet that writes is one transaction: what acquires share, what releases share, the statements
//! that an operation has for itself, then the reads whose rows are the answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::attempt::{Attempt, Next, Sharing};
use super::ids::Ids;
use super::operation::Operation;
use super::reply::{Layout, Reads};
use crate::db::Table;
use crate::db::{Connection, ErrorKind, Packet, Statement, Value};
use crate::lease::{
    Acquire, Message, MessageId, OwnerToken, Release, Row, Session, claim_mark, date_shift_us,
};

/// When the checks of rows' locks have taken so long, one of them has waited for a lock on the table, and
/// the next would wait, too.
const LOCK_CHECKS_MAX: Duration = Duration::from_millis(250);

/// Declares the statements by their files in `sql/`.
macro_rules! statements {
    ($($name:ident: $file:literal,)+) => {
        /// The statements, with the table's and its keys' names in them.
        pub(super) struct Statements {
            $(pub $name: Statement,)+
            pub table: Table,
            pub ids: Ids,
            /// Whether triggers could change what an INSERT wrote, so that its count is no answer.
            pub has_triggers: AtomicBool,
        }

        impl Statements {
            pub fn new(table: &Table) -> Self {
                let names = table.names();
                let read = |file| Statement::new(file, &names);
                Self {
                    $($name: read(include_str!(concat!("../../sql/", $file))),)+
                    table: table.clone(),
                    ids: Ids::new(table.max_key),
                    has_triggers: table.has_triggers.into(),
                }
            }
        }
    };
}

statements! {
    packet_clock: "lease/packet_clock.sql",
    acquire: "lease/acquire.sql",
    release_answered: "lease/release_answered.sql",
    renew: "lease/renew.sql",
    release: "lease/release.sql",
    release_several: "lease/release_several.sql",
    all_released: "lease/all_released.sql",
    delete_row: "lease/delete_row.sql",
    lock: "lease/lock.sql",
    try_lock: "lease/try_lock.sql",
    may_write: "lease/may_write.sql",
    read: "lease/read.sql",
    list: "lease/list.sql",
    watch: "lease/watch.sql",
    commit_message: "message/commit.sql",
    release_message: "message/release.sql",
    read_message: "message/read.sql",
    old_messages: "message/old.sql",
    forget_message: "message/forget.sql",
}

impl Statements {
    /// A packet that only reads, for all of these.
    pub fn read_packet(&self, attempts: &[&mut Attempt]) -> (Packet, Reads) {
        let mut packet = Packet::default();
        if attempts.iter().any(|attempt| attempt.answers_from_absence()) {
            self.may_write.write(&mut packet, &[]);
        }
        let all: Vec<_> = (0..attempts.len()).collect();
        let reads = self.append_reads(attempts, all.clone(), &all, &mut packet);
        (packet, reads)
    }

    /// The packet that does what all of these need next, as one transaction.
    pub fn write_packet(&self, attempts: &[&mut Attempt]) -> (Packet, Layout) {
        let mut packet = Packet::default();
        let mut layout = Layout { counts: vec![None; attempts.len()], ..Layout::default() };
        if let [attempt] = attempts
            && self.append_alone(attempt, &mut packet, &mut layout)
        {
            return (packet, layout);
        }
        // In one order in all packets: two servers that write to the same sessions then hardly ever
        // deadlock.
        let mut order: Vec<_> = (0..attempts.len()).collect();
        order.sort_unstable_by_key(|at| sort_key(attempts[*at].operation.session()));
        let acquires: Vec<_> = order.iter().filter_map(|at| claim(attempts[*at])).collect();
        if acquires.iter().any(|claim| claim.acquire.needs_packet_clock()) {
            self.packet_clock.write(&mut packet, &[]);
        }
        packet.push("START TRANSACTION");
        self.append_acquires(&acquires, &mut packet, &mut layout);
        self.append_shared_releases(attempts, &order, &mut packet, &mut layout);
        for at in &order {
            if layout.counts[*at].is_none() {
                layout.counts[*at] = self.append_own(attempts[*at], &mut packet);
            }
        }
        let rows_of: Vec<_> =
            order.iter().copied().filter(|at| attempts[*at].reads_row()).collect();
        layout.reads = self.append_reads(attempts, order, &rows_of, &mut packet);
        packet.push("COMMIT");
        (packet, layout)
    }

    /// Appends the one statement of an operation whose answer is its count; whether there is one. A
    /// statement is a transaction of its own.
    fn append_alone(&self, attempt: &Attempt, packet: &mut Packet, layout: &mut Layout) -> bool {
        let counts = !self.has_triggers.load(Ordering::Relaxed);
        if let Some(release) = attempt.only_deletes() {
            self.append_release(release, packet);
            layout.counts[0] = Some(0);
        } else if let (Some(_), true, Some(claim)) =
            (attempt.only_inserts(), counts, claim(attempt))
        {
            self.append_acquires(&[claim], packet, layout);
            layout.only_inserts = true;
        } else {
            return false;
        }
        true
    }

    fn append_acquires(&self, claims: &[Claim], packet: &mut Packet, layout: &mut Layout) {
        if claims.is_empty() {
            return;
        }
        let keys = claims.iter().map(|claim| {
            if let Next::Replace(replaced) = claim.next {
                return replaced.key;
            }
            let id = self.ids.take();
            layout.new_ids.push(id);
            id
        });
        let keys: Vec<_> = keys.collect();
        let rows = claims.iter().zip(&keys);
        let rows: Vec<_> = rows.map(|(claim, key)| claim.values(*key)).collect();
        self.acquire.write_rows(packet, &rows);
        for Claim { acquire, .. } in claims {
            if let Some(message_id) = &acquire.message_id {
                let [prospect, device] = session_values(&acquire.session);
                let owner_token = owner_value(&acquire.owner_token);
                let values = [prospect, device, owner_token, message_value(message_id)];
                self.release_answered.write(packet, &values);
            }
        }
    }

    fn append_shared_releases(
        &self,
        attempts: &[&mut Attempt],
        order: &[usize],
        packet: &mut Packet,
        layout: &mut Layout,
    ) {
        let shares = |at: &usize| {
            let release = attempts[*at].only_deletes()?;
            (attempts[*at].sharing == Sharing::Statements).then_some((*at, release))
        };
        let members: Vec<_> = order.iter().filter_map(shares).collect();
        if members.len() < 2 {
            return;
        }
        let owners = members.iter().map(|(_, release)| {
            let [(_, prospect), _] = session_values(&release.session);
            [prospect, owner_value(&release.owner_token).1]
        });
        let owners: Vec<_> = owners.collect();
        let devices = by_device(members.iter().map(|(_, release)| &release.session));
        let lists = devices.into_iter().map(|(device, places)| {
            let prospects: Vec<_> = places.iter().map(|at| owners[*at][0]).collect();
            let pairs = places.iter().map(|at| Value::Tuple(&owners[*at]));
            (device, prospects, pairs.collect::<Vec<_>>())
        });
        let lists: Vec<_> = lists.collect();
        let rows = lists.iter().map(|(device, prospects, pairs)| {
            [
                ("id_device", Value::Text(device)),
                ("id_prospects", Value::List(prospects)),
                ("owners", Value::List(pairs)),
            ]
        });
        for (at, _) in &members {
            // All of them are deleted, or the check fails.
            layout.counts[*at] = Some(packet.len());
        }
        self.release_several.write_rows(packet, &rows.collect::<Vec<_>>());
        let rows = ("rows", Value::Number(members.len() as u64));
        self.all_released.write(packet, &[rows]);
    }

    fn append_release(&self, release: &Release, packet: &mut Packet) {
        let [prospect, device] = session_values(&release.session);
        let owner_token = owner_value(&release.owner_token);
        self.release.write(packet, &[prospect, device, owner_token]);
    }

    /// Appends what an operation has for itself; the statement whose count is its own.
    fn append_own(&self, attempt: &Attempt, packet: &mut Packet) -> Option<usize> {
        match (attempt.operation, &attempt.next) {
            (Operation::Renew(renew), _) => {
                let [prospect, device] = session_values(&renew.session);
                let values = [
                    prospect,
                    device,
                    owner_value(&renew.owner_token),
                    ("shift_us", shift_us(renew.ttl.as_ms())),
                    ("max_hold_us", Value::Number(renew.max_hold_ms * 1_000)),
                    ("max_shift_us", shift_us(renew.max_hold_ms)),
                ];
                self.renew.write(packet, &values);
            }
            (Operation::Commit(commit), _) => {
                let [prospect, device] = session_values(&commit.session);
                self.lock.write(packet, &[prospect, device]);
                let record = record_values(&commit.message, &commit.owner_token);
                self.commit_message.write(packet, &[&[prospect, device], &record[..]].concat());
            }
            (Operation::Release(release), _) => {
                self.append_release(release, packet);
                let deleted_by = packet.len() - 1;
                if let Some(message) = &release.message {
                    let [prospect, device] = session_values(&release.session);
                    let record = record_values(message, &release.owner_token);
                    let values = [&[prospect, device], &record[..]].concat();
                    self.release_message.write(packet, &values);
                }
                return Some(deleted_by);
            }
            (Operation::Force(force), Next::Delete(row)) => {
                self.append_delete(&force.session, row, packet);
            }
            _ => return None,
        }
        Some(packet.len() - 1)
    }

    /// Appends the deletion of a row that is as it was read.
    pub fn append_delete(&self, session: &Session, row: &Row, packet: &mut Packet) {
        let [prospect, device] = session_values(session);
        let key = ("key", Value::Number(row.key));
        let stored = ("stored", Value::Bytes(&row.stored));
        self.delete_row.write(packet, &[prospect, device, key, stored]);
    }

    /// Which of these sessions' rows another program holds a lock on, found out without waiting for it.
    pub fn locked<'s>(
        &self,
        connection: &mut Connection,
        sessions: impl Iterator<Item = &'s Session>,
    ) -> Vec<bool> {
        let began = Instant::now();
        let is_locked = |session| {
            if began.elapsed() >= LOCK_CHECKS_MAX {
                return true;
            }
            let mut packet = Packet::default();
            self.try_lock.write(&mut packet, &session_values(session));
            let tried = connection.run_uncounted(&packet);
            tried.is_err_and(|failed| ErrorKind::of(&failed.error) == ErrorKind::RowLocked)
        };
        sessions.map(is_locked).collect()
    }

    fn append_reads(
        &self,
        attempts: &[&mut Attempt],
        members: Vec<usize>,
        rows_of: &[usize],
        packet: &mut Packet,
    ) -> Reads {
        let mut reads = Reads::default();
        if !rows_of.is_empty() {
            reads.rows = Some(packet.len());
            let sessions = rows_of.iter().map(|at| attempts[*at].operation.session());
            write_sessions(&self.read, sessions, packet);
        }
        let records = members.iter().filter_map(|at| {
            let operation = attempts[*at].operation;
            let [prospect, device] = session_values(operation.session());
            Some([prospect, device, message_value(operation.message_id()?)])
        });
        let records: Vec<_> = records.collect();
        if !records.is_empty() {
            reads.records = Some(packet.len());
            self.read_message.write_rows(packet, &records);
        }
        reads.members = members;
        reads
    }
}

/// A lease on its way into the table.
struct Claim<'a> {
    acquire: &'a Acquire,
    next: &'a Next,
    text: String,
}

fn claim<'a>(attempt: &'a Attempt) -> Option<Claim<'a>> {
    let Operation::Acquire(acquire, _) = attempt.operation else {
        return None;
    };
    let (mark, ttl_ms) = (claim_mark(), acquire.ttl.as_ms());
    let text = format!("{mark}{ttl_ms:07}{}", acquire.owner_token.secret());
    Some(Claim { acquire, next: &attempt.next, text })
}

impl Claim<'_> {
    fn values(&self, key: u64) -> [(&'static str, Value<'_>); 9] {
        let [prospect, device] = session_values(&self.acquire.session);
        let (stored, fencing_floor) = match self.next {
            Next::Replace(replaced) => (Value::Bytes(&replaced.stored), replaced.fencing_floor),
            _ => (Value::Null, 0),
        };
        [
            prospect,
            device,
            owner_value(&self.acquire.owner_token),
            ("key", Value::Number(key)),
            ("claim", Value::Bytes(self.text.as_bytes())),
            ("mark", Value::Text(claim_mark())),
            ("stored", stored),
            ("shift_us", shift_us(self.acquire.ttl.as_ms())),
            ("fencing_floor", Value::Number(fencing_floor)),
        ]
    }
}

/// What a write adds to the clock to get the stored date.
fn shift_us(lasts_ms: u64) -> Value<'static> {
    Value::Signed(date_shift_us(lasts_ms))
}

fn sort_key(session: &Session) -> (&str, &str) {
    (session.id_prospect.as_str(), session.id_device.as_str())
}

fn session_values(session: &Session) -> [(&'static str, Value<'_>); 2] {
    [
        ("id_prospect", Value::Text(session.id_prospect.as_str())),
        ("id_device", Value::Text(session.id_device.as_str())),
    ]
}

fn owner_value(owner_token: &OwnerToken) -> (&'static str, Value<'_>) {
    ("owner_token", Value::Bytes(owner_token.secret().as_bytes()))
}

fn message_value(message_id: &MessageId) -> (&'static str, Value<'_>) {
    ("message_id", Value::Bytes(message_id.as_str().as_bytes()))
}

fn record_values<'a>(
    message: &'a Message,
    owner_token: &'a OwnerToken,
) -> [(&'static str, Value<'a>); 3] {
    let result = message.result.as_ref();
    let result = result.map_or(Value::Null, |result| Value::Bytes(result.as_bytes()));
    [message_value(&message.id), owner_value(owner_token), ("result", result)]
}

/// Sessions by their devices, of which there are few: naming a device once for all its sessions, a
/// statement is parsed and planned in a fraction of the time.
fn by_device<'a>(sessions: impl Iterator<Item = &'a Session>) -> Vec<(&'a str, Vec<usize>)> {
    let mut devices: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut places = HashMap::new();
    for (at, session) in sessions.enumerate() {
        let device = session.id_device.as_str();
        let place = *places.entry(device).or_insert_with(|| {
            devices.push((device, Vec::new()));
            devices.len() - 1
        });
        devices[place].1.push(at);
    }
    devices
}

/// Writes a statement that names sessions, those of each device together.
fn write_sessions<'a>(
    statement: &Statement,
    sessions: impl Iterator<Item = &'a Session>,
    packet: &mut Packet,
) {
    let sessions: Vec<_> = sessions.collect();
    let lists = by_device(sessions.iter().copied()).into_iter();
    let lists = lists.map(|(device, members)| {
        let prospect = |at: usize| Value::Text(sessions[at].id_prospect.as_str());
        (device, members.into_iter().map(prospect).collect::<Vec<_>>())
    });
    let lists: Vec<_> = lists.collect();
    let rows = lists.iter().map(|(device, prospects)| {
        [("id_device", Value::Text(device)), ("id_prospects", Value::List(prospects))]
    });
    statement.write_rows(packet, &rows.collect::<Vec<_>>());
}
