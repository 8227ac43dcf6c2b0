//! Looks and writes as SQL: how operations become the statements of `sql/`, several operations in
//! one packet, and how the replies are told apart.

use std::collections::HashMap;
use std::ops::Range;

use crate::database::{Packet, Reply, Statement, Value, columns};
use crate::lease::{FencingToken, MessageId, Session, Stamp, TokenOrigin, Ttl, date_shift_us};
use crate::operation::{Claimed, Dated, Key, Look, Operation, Seen, SeenRecord, Task, Write};
use crate::table::Table;

/// The statements, with the table's and its keys' names in them.
pub(crate) struct Statements {
    look: Statement,
    look_message: Statement,
    acquire: Statement,
    date: Statement,
    withdraw: Statement,
    lock_row: Statement,
    unlocked_rows: Statement,
    all_changed: Statement,
    confirm: Statement,
    renew: Statement,
    commit: Statement,
    release: Statement,
    release_message: Statement,
    pub list: Statement,
    pub watch: Statement,
    pub may_delete: Statement,
    pub old_messages: Statement,
    pub forget_message: Statement,
    pub table: Table,
}

impl Statements {
    pub fn new(table: &Table) -> Self {
        let names = table.names();
        let read = |file| Statement::new(file, &names);
        Self {
            look: read(include_str!("../sql/look.sql")),
            look_message: read(include_str!("../sql/look_message.sql")),
            acquire: read(include_str!("../sql/acquire.sql")),
            date: read(include_str!("../sql/date.sql")),
            withdraw: read(include_str!("../sql/withdraw.sql")),
            lock_row: read(include_str!("../sql/lock_row.sql")),
            unlocked_rows: read(include_str!("../sql/unlocked_rows.sql")),
            all_changed: read(include_str!("../sql/all_changed.sql")),
            confirm: read(include_str!("../sql/confirm.sql")),
            renew: read(include_str!("../sql/renew.sql")),
            commit: read(include_str!("../sql/commit.sql")),
            release: read(include_str!("../sql/release.sql")),
            release_message: read(include_str!("../sql/release_message.sql")),
            list: read(include_str!("../sql/list.sql")),
            watch: read(include_str!("../sql/watch.sql")),
            may_delete: read(include_str!("../sql/may_delete.sql")),
            old_messages: read(include_str!("../sql/old_messages.sql")),
            forget_message: read(include_str!("../sql/forget_message.sql")),
            table: table.clone(),
        }
    }

    /// Appends one look at the sessions of all these tasks, and one at their messages.
    pub fn append_look(&self, tasks: &[&mut Task], packet: &mut Packet) {
        let sessions = ByDevice::new(tasks.iter().map(|task| task.operation.session()));
        self.look.write_rows(packet, &sessions.values(&[]));
        let messages = tasks.iter().filter_map(|task| {
            let [prospect, device] = session_values(task.operation.session());
            let message_id = task.operation.message_id()?;
            Some([prospect, device, message_value(message_id)])
        });
        let messages: Vec<_> = messages.collect();
        if !messages.is_empty() {
            self.look_message.write_rows(packet, &messages);
        }
    }

    /// Appends the planned writes of these tasks, and what tells them apart. Those of the same kind
    /// have one statement together, if one will do.
    pub fn append_writes(&self, tasks: &[&mut Task], packet: &mut Packet) -> Places {
        let mut places = Places::default();
        for task in tasks {
            let start = packet.len();
            if let Some(write) = &task.write {
                self.append_write(write, task, packet);
            }
            places.own.push(start..packet.len());
        }
        let ends: Vec<_> = tasks.iter().filter_map(|task| end(task)).collect();
        if !ends.is_empty() {
            places.ends = Some(packet.len());
            self.append_deletes(&ends, packet);
        }
        if ends.len() > 1 {
            let rows = ("rows", Value::Number(ends.len() as u64));
            self.all_changed.write(packet, &[rows]);
        }
        let claims = tasks.iter().enumerate();
        let claims = claims.filter_map(|(at, task)| claim(at, task)).collect();
        self.append_claims(claims, packet, &mut places);
        places
    }

    fn append_claims(&self, mut claims: Vec<Claim>, packet: &mut Packet, places: &mut Places) {
        let start = packet.len();
        // Each statement's in one order on all servers: two that claim the same sessions then hardly
        // ever deadlock.
        claims.sort_unstable_by_key(|claim| {
            let session = claim.session;
            (session.id_prospect.as_str(), session.id_device.as_str())
        });
        // Apart: in one statement, those with a key would burn an id each beside one without.
        // First these, which may meet a lock; that burns no id then.
        let (next, explicit): (Vec<_>, Vec<_>) = claims
            .iter()
            .partition(|claim| matches!(claim.key, Key::Next));
        for claims in [&explicit, &next] {
            if !claims.is_empty() {
                let rows: Vec<_> = claims.iter().map(|claim| claim.values()).collect();
                self.acquire.write_rows(packet, &rows);
            }
        }
        places.claims = start..packet.len();
        places.next = next.iter().map(|claim| claim.task).collect();
        for claim in &claims {
            if let Some(message_id) = claim.message_id {
                let values = [&claim.values()[..], &[message_value(message_id)]].concat();
                self.withdraw.write(packet, &values);
            }
        }
        // One statement for all that are dated alike: most of the time there is one.
        claims.sort_unstable_by_key(Claim::dating);
        for alike in claims.chunk_by(|one, other| one.dating() == other.dating()) {
            let (ttl_ms, odd, fencing_floor) = alike[0].dating();
            let texts: Vec<_> = alike.iter().map(Claim::text).collect();
            let values = [
                ("claims", Value::List(&texts)),
                ("shift_us", shift_us(ttl_ms)),
                ("odd", Value::Number(odd)),
                ("fencing_floor", Value::Number(fencing_floor)),
            ];
            let tasks = alike.iter().map(|claim| claim.task).collect();
            places.dates.push((packet.len(), tasks));
            let sessions = ByDevice::new(alike.iter().map(|claim| claim.session));
            self.date.write_rows(packet, &sessions.values(&values));
        }
    }

    fn append_write(&self, write: &Write, task: &Task, packet: &mut Packet) {
        let operation = task.operation;
        let [prospect, device] = session_values(operation.session());
        match write {
            // All together, in `append_writes`.
            Write::Acquire { .. } => {}
            Write::Delete { .. } if operation.message_id().is_none() => {}
            Write::Confirm { key, seen } => {
                let firm = Stamp::made_firm(seen.clone());
                let values = [
                    ("key", Value::Number(*key)),
                    ("seen", Value::Bytes(seen)),
                    ("firm", Value::Bytes(&firm)),
                ];
                self.confirm.write(packet, &values);
            }
            Write::Renew {
                owner_token,
                ttl,
                key,
                seen,
                fencing_token,
                expires_us,
                max_hold_ms,
            } => {
                // Whoever asks where its lease is not remembered may have it from another server.
                let standing = if task.is_remembered() {
                    Stamp::standing_digit(seen)
                } else {
                    Stamp::FIRM_DIGIT
                };
                let granted_us = fencing_token.0;
                let key = ("key", Value::Number(*key));
                self.lock_row.write(packet, &[key]);
                let tail = format!("{standing}{granted_us:016}{}", owner_token.secret());
                let latest_us = granted_us.saturating_add(max_hold_ms * 1_000);
                let values = [
                    key,
                    ("seen", Value::Bytes(seen)),
                    ("expires_us", Value::Number(*expires_us)),
                    ("shift_us", shift_us(ttl.as_ms())),
                    ("granted_us", Value::Number(granted_us)),
                    ("latest_us", Value::Number(latest_us)),
                    ("latest_shift_us", shift_us(*max_hold_ms)),
                    ("tail", Value::Text(&tail)),
                ];
                self.renew.write(packet, &values);
            }
            Write::Commit {
                key,
                seen,
                expires_us,
            } => {
                let key = ("key", Value::Number(*key));
                self.lock_row.write(packet, &[key]);
                let seen = ("seen", Value::Bytes(seen));
                let expires_us = ("expires_us", Value::Number(*expires_us));
                if let Some(record) = record_values(operation) {
                    let values = [&[key, seen, expires_us, prospect, device], &record[..]].concat();
                    self.commit.write(packet, &values);
                }
            }
            Write::Delete { key, seen, .. } => {
                let end = End {
                    session: operation.session(),
                    key: *key,
                    seen,
                };
                self.append_deletes(&[end], packet);
                if let Some(record) = record_values(operation) {
                    let values = [&[prospect, device], &record[..]].concat();
                    self.release_message.write(packet, &values);
                }
            }
        }
    }

    /// Appends a look at which of these rows nobody holds a lock on.
    pub fn append_unlocked(&self, keys: &[u64], packet: &mut Packet) {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| [("key", Value::Number(*key))])
            .collect();
        self.unlocked_rows.write_rows(packet, &rows);
    }

    /// Appends the deletion of rows that are as they were seen.
    pub fn append_deletes(&self, ends: &[End], packet: &mut Packet) {
        let keys: Vec<_> = ends.iter().map(|end| Value::Number(end.key)).collect();
        let seen: Vec<_> = ends.iter().map(|end| Value::Bytes(end.seen)).collect();
        let sessions = ByDevice::new(ends.iter().map(|end| end.session));
        let values = [("keys", Value::List(&keys)), ("seen", Value::List(&seen))];
        self.release.write_rows(packet, &sessions.values(&values));
    }
}

/// Where in a packet the writes of some tasks are.
#[derive(Default)]
pub(crate) struct Places {
    /// Each task's own statements.
    own: Vec<Range<usize>>,
    /// The statement that deletes for all.
    ends: Option<usize>,
    /// The statements that claim for all.
    claims: Range<usize>,
    /// The tasks that claim under the counter's next ids, with the last one of these statements.
    next: Vec<usize>,
    /// The statements that date claims, and whose.
    dates: Vec<(usize, Vec<usize>)>,
}

impl Places {
    /// How many rows each task changed; those that deleted or claimed together, together.
    pub fn changed(&self, tasks: &[&mut Task], replies: &[Reply]) -> Vec<u64> {
        let sum = |place: &Range<usize>| -> u64 {
            let replies = &replies[place.clone()];
            replies.iter().map(|reply| reply.affected).sum()
        };
        let changed = tasks
            .iter()
            .zip(&self.own)
            .map(|(task, own)| match &task.write {
                Some(Write::Delete { .. }) if task.only_deletes() => {
                    self.ends.map_or(0, |at| replies[at].affected)
                }
                Some(Write::Acquire { .. }) => sum(&self.claims),
                _ => sum(own),
            });
        changed.collect()
    }

    /// What became of each task's claim, as far as the statements say it: each names sessions, and
    /// claims of their owners, so if it dated as many rows as that, it dated all of these.
    pub fn claimed(&self, tasks: &[&mut Task], replies: &[Reply], id_step: u64) -> Vec<Claimed> {
        // If one was not written, the ids of those behind it may be others.
        let first_id = replies[self.claims.clone()]
            .last()
            .filter(|reply| reply.affected == self.next.len() as u64)
            .map(|reply| reply.last_insert_id);
        let explicit = |task: &&mut Task| match task.write {
            Some(Write::Acquire {
                key: Key::Explicit(key),
                ..
            }) => Some(key),
            _ => None,
        };
        let mut keys: Vec<_> = tasks.iter().map(explicit).collect();
        for (place, task) in (0_u64..).zip(&self.next) {
            keys[*task] = first_id.map(|first_id| first_id + place * id_step);
        }
        let mut claimed = vec![Claimed::Unclear(None); tasks.len()];
        for (at, members) in &self.dates {
            let reply = &replies[*at];
            // A trigger keeps it from being told.
            let fencing_token =
                Some(FencingToken(reply.last_insert_id)).filter(|token| token.0 > 0);
            for task in members {
                claimed[*task] = match (reply.affected, keys[*task], fencing_token) {
                    (0, _, _) => Claimed::Missed,
                    (dated, Some(key), Some(fencing_token)) if dated == members.len() as u64 => {
                        Claimed::Dated(Dated { key, fencing_token })
                    }
                    _ => Claimed::Unclear(fencing_token),
                };
            }
        }
        claimed
    }
}

/// What a look at some tasks showed.
pub(crate) enum Looked {
    /// Of each.
    Each(Vec<Look>),
    /// A row whose ids are spelled like those of no task, or of several: the column's collation
    /// takes more texts for the same than we do. Alone, a task knows that it is its own.
    Mixed,
}

/// Reads the replies to a look at these tasks, the next ones of the packet.
pub(crate) fn read_look(
    tasks: &[&mut Task],
    replies: &mut impl Iterator<Item = Reply>,
) -> mysql::Result<Looked> {
    let owners = Owners::new(tasks);
    let mut looks: Vec<Look> = tasks.iter().map(|_| Look::default()).collect();
    let mut rows = || replies.next().map(|reply| reply.rows).unwrap_or_default();
    for row in rows() {
        let (key, stored, age_us, clock_us, prospect, device): (_, _, _, _, String, String) =
            columns(row)?;
        let Some(at) = owners.find(&prospect, &device) else {
            return Ok(Looked::Mixed);
        };
        looks[at].row = Some(Seen::new(key, stored, age_us, clock_us));
    }
    if tasks
        .iter()
        .any(|task| task.operation.message_id().is_some())
    {
        for row in rows() {
            let (owner_token, age_us, result, prospect, device): (_, _, _, String, String) =
                columns(row)?;
            let Some(at) = owners.find(&prospect, &device) else {
                return Ok(Looked::Mixed);
            };
            looks[at].record = Some(SeenRecord::new(owner_token, age_us, result));
        }
    }
    Ok(Looked::Each(looks))
}

/// Which task a row belongs to, by its ids.
enum Owners {
    /// There is but one.
    Only,
    /// By the ids in small letters; `None` for several tasks that are told apart by their case.
    ByIds(HashMap<(String, String), Option<usize>>),
}

impl Owners {
    fn new(tasks: &[&mut Task]) -> Self {
        if tasks.len() == 1 {
            return Self::Only;
        }
        let mut owners = HashMap::new();
        for (at, task) in tasks.iter().enumerate() {
            let Session {
                id_prospect,
                id_device,
            } = task.operation.session();
            let ids = (
                id_prospect.as_str().to_lowercase(),
                id_device.as_str().to_lowercase(),
            );
            let owner = owners.entry(ids);
            owner.and_modify(|owner| *owner = None).or_insert(Some(at));
        }
        Self::ByIds(owners)
    }

    fn find(&self, prospect: &str, device: &str) -> Option<usize> {
        match self {
            Self::Only => Some(0),
            Self::ByIds(owners) => {
                let ids = (prospect.to_lowercase(), device.to_lowercase());
                owners.get(&ids).copied().flatten()
            }
        }
    }
}

/// What a claim has in place of a date and a fencing token: as long as these.
const UNDATED: &str = "1970-01-01 00:00:00.0000000000000000000000";

/// A lease on its way: its text without a date, and what is written with it.
struct Claim<'a> {
    task: usize,
    session: &'a Session,
    message_id: Option<&'a MessageId>,
    key: Key,
    seen: Option<&'a [u8]>,
    text: String,
    ttl: Ttl,
    origin: TokenOrigin,
    fencing_floor: u64,
}

fn claim<'a>(at: usize, task: &'a Task) -> Option<Claim<'a>> {
    let Some(Write::Acquire {
        lease,
        key,
        seen,
        fencing_floor,
        ..
    }) = &task.write
    else {
        return None;
    };
    Some(Claim {
        task: at,
        session: task.operation.session(),
        message_id: task.operation.message_id(),
        key: *key,
        seen: seen.as_deref(),
        text: format!("{UNDATED}{}", lease.owner_token.secret()),
        ttl: lease.ttl,
        origin: lease.origin,
        fencing_floor: *fencing_floor,
    })
}

impl Claim<'_> {
    fn values(&self) -> [(&'static str, Value<'_>); 5] {
        let [prospect, device] = session_values(self.session);
        let key = match self.key {
            Key::Next => Value::Null,
            Key::Explicit(key) => Value::Number(key),
        };
        [
            prospect,
            device,
            ("key", key),
            ("seen", self.seen.map_or(Value::Null, Value::Bytes)),
            ("claim", self.text()),
        ]
    }

    /// What its date depends on: the ttl in milliseconds, whether the fencing token is to be odd (1,
    /// else 0), and the least one.
    fn dating(&self) -> (u64, u64, u64) {
        let odd = match self.origin {
            TokenOrigin::Callers => 1,
            TokenOrigin::Ours => 0,
        };
        (self.ttl.as_ms(), odd, self.fencing_floor)
    }

    fn text(&self) -> Value<'_> {
        Value::Bytes(self.text.as_bytes())
    }
}

/// What a write adds to the clock to get the stored date.
fn shift_us(lasts_ms: u64) -> Value<'static> {
    Value::Signed(date_shift_us(lasts_ms))
}

fn session_values(session: &Session) -> [(&'static str, Value<'_>); 2] {
    [
        ("id_prospect", Value::Text(session.id_prospect.as_str())),
        ("id_device", Value::Text(session.id_device.as_str())),
    ]
}

/// Sessions by their devices, of which there are few: naming a device once for all its sessions, a
/// statement is parsed and planned in a fraction of the time.
struct ByDevice<'a>(Vec<(&'a str, Vec<Value<'a>>)>);

impl<'a> ByDevice<'a> {
    fn new(sessions: impl Iterator<Item = &'a Session>) -> Self {
        let mut devices: HashMap<_, Vec<_>> = HashMap::new();
        for Session {
            id_device,
            id_prospect,
        } in sessions
        {
            let prospects = devices.entry(id_device.as_str()).or_default();
            prospects.push(Value::Text(id_prospect.as_str()));
        }
        Self(devices.into_iter().collect())
    }

    /// Each device's, with these beside them.
    fn values<'v>(
        &'v self,
        others: &[(&'static str, Value<'v>)],
    ) -> Vec<Vec<(&'static str, Value<'v>)>> {
        let values = self.0.iter().map(|(device, prospects)| {
            let own = [
                ("id_device", Value::Text(device)),
                ("id_prospects", Value::List(prospects)),
            ];
            [&own, others].concat()
        });
        values.collect()
    }
}

/// A row that is to be deleted, as it was seen.
pub(crate) struct End<'a> {
    pub session: &'a Session,
    pub key: u64,
    pub seen: &'a [u8],
}

/// What is deleted for a task, if that is all there is to it.
fn end<'a>(task: &'a Task) -> Option<End<'a>> {
    match &task.write {
        Some(Write::Delete { key, seen, .. }) if task.operation.message_id().is_none() => {
            let session = task.operation.session();
            Some(End {
                session,
                key: *key,
                seen,
            })
        }
        _ => None,
    }
}

fn message_value(message_id: &MessageId) -> (&'static str, Value<'_>) {
    ("message_id", Value::Bytes(message_id.as_str().as_bytes()))
}

/// What the record of the operation's message says, if it is to write one.
fn record_values(operation: &Operation) -> Option<[(&'static str, Value<'_>); 3]> {
    let (message, owner_token) = match operation {
        Operation::Commit {
            message,
            owner_token,
            ..
        } => (message, owner_token),
        Operation::Release {
            message,
            owner_token,
            ..
        } => (message.as_ref()?, owner_token),
        _ => return None,
    };
    let result = message.result.as_ref();
    Some([
        message_value(&message.id),
        ("owner_token", Value::Bytes(owner_token.secret().as_bytes())),
        (
            "result",
            result.map_or(Value::Null, |result| Value::Bytes(result.as_bytes())),
        ),
    ])
}
