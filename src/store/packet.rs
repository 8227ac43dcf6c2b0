//! Operations as packets of the statements in `sql/`, and the replies told apart.
//!
//! A packet that writes is one transaction: what acquires share, what releases share, the statements
//! that an operation has for itself, then the reads whose rows are the answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ids::Ids;
use super::operation::{Attempt, Next, Operation, Sharing};
use crate::database::{Packet, Reply, Statement, Value, columns};
use crate::lease::{
    Acquire, Message, MessageId, OwnerToken, Read, Release, Row, Session, StoredRecord, claim_mark,
    date_shift_us,
};
use crate::table::Table;

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
    unlocked_rows: "lease/unlocked_rows.sql",
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
    pub fn look(&self, attempts: &[&mut Attempt]) -> (Packet, Reads) {
        let mut packet = Packet::default();
        if attempts
            .iter()
            .any(|attempt| attempt.answers_from_absence())
        {
            self.may_write.write(&mut packet, &[]);
        }
        let all: Vec<_> = (0..attempts.len()).collect();
        let reads = self.append_reads(attempts, all.clone(), &all, &mut packet);
        (packet, reads)
    }

    /// The packet that does what all of these need next, as one transaction.
    pub fn write(&self, attempts: &[&mut Attempt]) -> (Packet, Layout) {
        let mut packet = Packet::default();
        let mut layout = Layout {
            counts: vec![None; attempts.len()],
            ..Layout::default()
        };
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
        if acquires
            .iter()
            .any(|claim| claim.acquire.needs_packet_clock())
        {
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
        let rows_of: Vec<_> = order
            .iter()
            .copied()
            .filter(|at| attempts[*at].reads_row())
            .collect();
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
        self.release_several
            .write_rows(packet, &rows.collect::<Vec<_>>());
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
                self.commit_message
                    .write(packet, &[&[prospect, device], &record[..]].concat());
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
        let seen = ("seen", Value::Bytes(&row.stored));
        self.delete_row
            .write(packet, &[prospect, device, key, seen]);
    }

    /// A packet that reads the rows of all these, and finds out which nobody holds a lock on.
    pub fn locked_rows(&self, attempts: &[&mut Attempt]) -> (Packet, Reads) {
        let mut packet = Packet::default();
        let sessions = || attempts.iter().map(|attempt| attempt.operation.session());
        write_sessions(&self.read, sessions(), &mut packet);
        write_sessions(&self.unlocked_rows, sessions(), &mut packet);
        let reads = Reads {
            members: (0..attempts.len()).collect(),
            rows: Some(0),
            records: None,
        };
        (packet, reads)
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

/// Where in a packet's replies the rows and the records are.
#[derive(Default)]
pub(super) struct Reads {
    members: Vec<usize>,
    rows: Option<usize>,
    records: Option<usize>,
}

/// Where in a packet's replies each operation's own are.
#[derive(Default)]
pub(super) struct Layout {
    /// The statement whose count is the operation's, if it has one.
    counts: Vec<Option<usize>>,
    pub reads: Reads,
    pub new_ids: Vec<u64>,
    /// Whether it has one INSERT and nothing else.
    pub only_inserts: bool,
}

impl Layout {
    /// What came back for each of these operations. `None` for one that cannot be told from others.
    pub fn read(
        &self,
        attempts: &[&mut Attempt],
        replies: Vec<Reply>,
        table: &Table,
    ) -> mysql::Result<Vec<Option<Read>>> {
        let affected: Vec<_> = replies.iter().map(|reply| reply.affected).collect();
        let mut reads = self.reads.read(attempts, replies, table)?;
        for ((read, count), attempt) in reads.iter_mut().zip(&self.counts).zip(attempts) {
            // One that several share changed a row of each.
            let changed = count.map_or(0, |at| affected[at]);
            match read {
                // Its row came back under another spelling of the session.
                Some(read) if changed > 0 && attempt.reads_row() && read.row.is_none() => {}
                Some(read) => {
                    read.changed = changed;
                    continue;
                }
                None => {}
            }
            *read = None;
        }
        Ok(reads)
    }

    /// The id and the fencing token of the row that the packet's one INSERT wrote, if it wrote one.
    pub fn inserted(&self, replies: &[Reply]) -> Option<(u64, u64)> {
        /// One row inserted, which counts 1, and dated, which counts 2.
        const INSERTED_AND_DATED: u64 = 3;
        let reply = replies
            .first()
            .filter(|reply| reply.affected == INSERTED_AND_DATED && reply.last_insert_id > 0)?;
        Some((*self.new_ids.first()?, reply.last_insert_id))
    }
}

impl Reads {
    /// What was read for each of these operations. If a row belongs to none of them, or to several
    /// (the column's collation takes more texts for the same than we do), `None` for those without a row:
    /// alone, an operation knows that a row is its own.
    pub fn read(
        &self,
        attempts: &[&mut Attempt],
        mut replies: Vec<Reply>,
        table: &Table,
    ) -> mysql::Result<Vec<Option<Read>>> {
        let owners = Owners::new(attempts, &self.members, table);
        let mut take = |at: Option<usize>| {
            at.map_or_else(Vec::new, |at| std::mem::take(&mut replies[at].rows))
        };
        let mut reads: Vec<_> = attempts.iter().map(|_| Read::default()).collect();
        let (mut has_foreign_row, mut has_foreign_record) = (false, false);
        for row in take(self.rows) {
            let (key, stored, prospect, device, words): (_, _, String, String, String) =
                columns(row)?;
            let Some(at) = owners.find(&prospect, &device) else {
                has_foreign_row = true;
                continue;
            };
            let mut words = words.split(' ');
            let age_us = words.next().and_then(|word| word.parse().ok());
            let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let clock_us: u64 = number();
            reads[at].row = Some(Row::new(key, stored, age_us, clock_us));
            reads[at].began_us = number();
            reads[at].takes_writes = number() == 1;
        }
        for row in take(self.records) {
            let (owner_token, age_us, result, prospect, device, message_id): (
                _,
                _,
                _,
                String,
                String,
                Vec<u8>,
            ) = columns(row)?;
            let at = owners.find(&prospect, &device);
            let message = at.and_then(|at| attempts[at].operation.message_id());
            match (at, message) {
                (Some(at), Some(message)) if message.as_str().as_bytes() == message_id => {
                    reads[at].record = Some(StoredRecord::new(owner_token, age_us, result));
                }
                _ => has_foreign_record = true,
            }
        }
        let told = reads.into_iter().zip(attempts).map(|(read, attempt)| {
            let needs_row = attempt.is_looking() || attempt.reads_row();
            let needs_record = attempt.operation.message_id().is_some();
            let is_untold = has_foreign_row && needs_row && read.row.is_none()
                || has_foreign_record && needs_record && read.record.is_none();
            (!is_untold).then_some(read)
        });
        Ok(told.collect())
    }
}

/// Which operation a row belongs to, by its ids.
enum Owners<'t> {
    Only(usize),
    /// By one spelling of the ids; `None` for several operations of one session.
    ByIds(&'t Table, HashMap<(String, String), Option<usize>>),
}

impl<'t> Owners<'t> {
    fn new(attempts: &[&mut Attempt], members: &[usize], table: &'t Table) -> Self {
        if let [only] = members {
            return Self::Only(*only);
        }
        let mut owners = HashMap::new();
        for at in members {
            let session = attempts[*at].operation.session();
            let ids = table.name(session.id_prospect.as_str(), session.id_device.as_str());
            let owner = owners.entry(ids);
            owner.and_modify(|owner| *owner = None).or_insert(Some(*at));
        }
        Self::ByIds(table, owners)
    }

    fn find(&self, prospect: &str, device: &str) -> Option<usize> {
        match self {
            Self::Only(at) => Some(*at),
            Self::ByIds(table, owners) => *owners.get(&table.name(prospect, device))?,
        }
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
    Some(Claim {
        acquire,
        next: &attempt.next,
        text,
    })
}

impl Claim<'_> {
    fn values(&self, key: u64) -> [(&'static str, Value<'_>); 9] {
        let [prospect, device] = session_values(&self.acquire.session);
        let (seen, fencing_floor) = match self.next {
            Next::Replace(replaced) => (Value::Bytes(&replaced.seen), replaced.fencing_floor),
            _ => (Value::Null, 0),
        };
        [
            prospect,
            device,
            owner_value(&self.acquire.owner_token),
            ("key", Value::Number(key)),
            ("claim", Value::Bytes(self.text.as_bytes())),
            ("mark", Value::Text(claim_mark())),
            ("seen", seen),
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
    [
        message_value(&message.id),
        owner_value(owner_token),
        ("result", result),
    ]
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
        (
            device,
            members.into_iter().map(prospect).collect::<Vec<_>>(),
        )
    });
    let lists: Vec<_> = lists.collect();
    let rows = lists.iter().map(|(device, prospects)| {
        [
            ("id_device", Value::Text(device)),
            ("id_prospects", Value::List(prospects)),
        ]
    });
    statement.write_rows(packet, &rows.collect::<Vec<_>>());
}
