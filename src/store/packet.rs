//! Operations as packets of the statements in `sql/`.
//!
//! A packet that writes is one transaction: the statements that acquires share, those that releases
//! share, each operation's own, and then the reads whose rows are the answers.

use super::attempt::{Attempt, Next, Sharing};
use super::ids::Ids;
use super::operation::Operation;
use super::reply::{Layout, Reads};
use super::spelling::Spellings;
use crate::db::{Packet, SECRET_DIGITS, Statement, Table, Value};
use crate::lease::{
    self, Acquire, Message, MessageId, OWNER_TOKEN_DIGITS, OwnerToken, Replace, Row, Session,
    claim_mark, date_shift_us,
};

/// Declares the statements by their files in `sql/`.
macro_rules! statements {
    ($($name:ident: $file:literal,)+) => {
        /// The statements, with the names of the table and its keys filled in.
        pub struct Statements {
            $(pub $name: Statement,)+
            pub table: Table,
            pub spellings: Spellings,
            pub ids: Ids,
            /// Whether old programs wrote the server's time zone when the statements were made.
            pub has_server_zone: bool,
        }

        impl Statements {
            pub fn new(table: &Table, spellings: Spellings, has_server_zone: bool) -> Self {
                let names = table.names();
                Self {
                    $($name: Statement::new(include_str!(concat!("../../sql/", $file)), &names),)+
                    table: table.clone(),
                    spellings,
                    ids: Ids::new(table.max_key),
                    has_server_zone,
                }
            }
        }
    };
}

statements! {
    acquire: "lease/acquire.sql",
    release_answered: "lease/release_answered.sql",
    written: "lease/written.sql",
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
    commit_message: "message/record_on_commit.sql",
    record_on_release: "message/record_on_release.sql",
    read_message: "message/read.sql",
    old_messages: "message/old.sql",
    forget_message: "message/forget.sql",
}

impl Statements {
    /// A row as it was read. The dates of old programs are in the server's own zone.
    pub fn row(
        &self,
        key: i64,
        stored: Vec<u8>,
        age_us: Option<i64>,
        clock_us: u64,
        zone_ahead_us: i64,
    ) -> Row {
        let mut row = Row::new(key, stored, age_us, clock_us);
        if self.has_server_zone {
            row.apply_zone(zone_ahead_us);
        }
        row
    }

    /// A packet that only reads, for all these operations.
    pub fn read_packet(&self, attempts: &[&mut Attempt]) -> (Packet, Reads) {
        let mut packet = Packet::for_writable_server();
        let all: Vec<_> = (0..attempts.len()).collect();
        let reads = self.append_reads(attempts, &all, &all, &mut packet);
        (packet, reads)
    }

    /// The transaction with the next writes of all these operations.
    pub fn write_packet(&self, attempts: &[&mut Attempt]) -> (Packet, Layout) {
        let mut packet = Packet::for_writable_server();
        let mut layout = Layout { own: vec![None; attempts.len()], ..Layout::default() };
        if let [attempt] = attempts
            && self.append_single(attempt, &mut packet, &mut layout)
        {
            return (packet, layout);
        }
        // With the same order in all packets, two servers that write to the same sessions hardly
        // ever deadlock.
        let mut order: Vec<_> = (0..attempts.len()).collect();
        order.sort_unstable_by_key(|at| {
            let session = attempts[*at].operation.session();
            (session.id_prospect.as_str(), session.id_device.as_str())
        });
        packet.push("START TRANSACTION");
        self.append_acquires(attempts, &order, &mut packet, &mut layout);
        self.append_shared_releases(attempts, &order, &mut packet, &mut layout);
        for at in &order {
            if layout.own[*at].is_none() {
                layout.own[*at] = self.append_own(attempts[*at], &mut packet);
            }
        }
        let rows_of: Vec<_> =
            order.iter().copied().filter(|at| attempts[*at].reads_row()).collect();
        layout.reads = self.append_reads(attempts, &order, &rows_of, &mut packet);
        packet.push("COMMIT");
        (packet, layout)
    }

    /// Appends the single statement of an operation if its count is the answer: it needs no
    /// transaction around it. Returns whether it did.
    fn append_single(&self, attempt: &Attempt, packet: &mut Packet, layout: &mut Layout) -> bool {
        if let Some(release) = attempt.plain_release() {
            self.release.write(packet, &lease_values(&release.session, &release.owner_token));
            layout.own[0] = Some(0);
            return true;
        }
        let is_plain = attempt.is_plain_insert() && !self.table.has_triggers;
        if let Some(claim) = claim(attempt).filter(|_| is_plain) {
            self.append_insert(&[claim], packet, layout);
            layout.is_plain_insert = true;
        }
        layout.is_plain_insert
    }

    /// Appends the acquires: an INSERT for each that needs its own, and one for all others.
    fn append_acquires(
        &self,
        attempts: &[&mut Attempt],
        order: &[usize],
        packet: &mut Packet,
        layout: &mut Layout,
    ) {
        let claims = order.iter().filter_map(|at| Some((*at, claim(attempts[*at])?)));
        let (own, shared): (Vec<_>, Vec<_>) =
            claims.partition(|(_, claim)| claim.acquire.needs_own_insert());
        for (at, claim) in own {
            let Acquire { session, owner_token, message_id, .. } = claim.acquire;
            self.append_insert(&[claim], packet, layout);
            if let Some(message_id) = message_id {
                let [prospect, device, owner] = lease_values(session, owner_token);
                let values = [prospect, device, owner, message_value(message_id)];
                self.release_answered.write(packet, &values);
            }
            layout.own[at] = Some(packet.len());
            self.written.write(packet, &[]);
        }
        let shared: Vec<_> = shared.into_iter().map(|(_, claim)| claim).collect();
        self.append_insert(&shared, packet, layout);
    }

    fn append_insert(&self, claims: &[Claim], packet: &mut Packet, layout: &mut Layout) {
        if claims.is_empty() {
            return;
        }
        let rows = claims.iter().map(|claim| {
            let key = claim.replaced.map_or_else(|| self.ids.take(), |replaced| replaced.key);
            if claim.replaced.is_none() {
                layout.new_ids.push(key);
            }
            claim.values(key)
        });
        self.acquire.write_rows(packet, &rows.collect::<Vec<_>>());
    }

    fn append_shared_releases(
        &self,
        attempts: &[&mut Attempt],
        order: &[usize],
        packet: &mut Packet,
        layout: &mut Layout,
    ) {
        let members = order.iter().filter_map(|at| {
            let release = attempts[*at].plain_release()?;
            (attempts[*at].sharing == Sharing::Statements).then_some((*at, release))
        });
        let members: Vec<_> = members.collect();
        if members.len() < 2 {
            return;
        }
        for (at, _) in &members {
            // Either all rows are deleted or the next statement fails.
            layout.own[*at] = Some(packet.len());
        }
        let devices = by_device(members.iter().map(|(_, release)| {
            let [prospect, _, owner] = lease_values(&release.session, &release.owner_token);
            (&release.session, [prospect.1, owner.1])
        }));
        let lists = devices.iter().map(|(device, owners)| {
            let prospects: Vec<_> = owners.iter().map(|[prospect, _]| *prospect).collect();
            let owners: Vec<_> = owners.iter().map(|pair| Value::Tuple(pair)).collect();
            (device, prospects, owners)
        });
        let lists: Vec<_> = lists.collect();
        let rows = lists.iter().map(|(device, prospects, owners)| {
            [
                ("id_device", Value::Text(device)),
                ("id_prospects", Value::List(prospects)),
                ("owners", Value::List(owners)),
            ]
        });
        self.release_several.write_rows(packet, &rows.collect::<Vec<_>>());
        let rows = ("rows", Value::Number(members.len() as u64));
        self.all_released.write(packet, &[rows]);
    }

    /// Appends an operation's own statements; returns the one whose count is its own.
    fn append_own(&self, attempt: &Attempt, packet: &mut Packet) -> Option<usize> {
        match (attempt.operation, &attempt.next) {
            (Operation::Renew(renew), _) => {
                let [prospect, device, owner] = lease_values(&renew.session, &renew.owner_token);
                let values = [
                    prospect,
                    device,
                    owner,
                    ("shift_us", shift_us(renew.ttl.as_ms())),
                    ("max_hold_us", Value::Number(renew.max_hold_ms * 1_000)),
                    ("max_shift_us", shift_us(renew.max_hold_ms)),
                ];
                self.renew.write(packet, &values);
            }
            (Operation::Commit(commit), _) => {
                let lease = lease_values(&commit.session, &commit.owner_token);
                self.lock.write(packet, &lease);
                self.commit_message.write(packet, &record_values(lease, &commit.message));
            }
            (Operation::Release(release), _) => {
                let lease = lease_values(&release.session, &release.owner_token);
                self.release.write(packet, &lease);
                let deleted_by = packet.len() - 1;
                if let Some(message) = &release.message {
                    self.record_on_release.write(packet, &record_values(lease, message));
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

    /// Appends the deletion of a row, if it has not changed since it was read.
    pub fn append_delete(&self, session: &Session, row: &Row, packet: &mut Packet) {
        let [prospect, device] = session_values(session);
        let key = ("key", Value::Signed(row.key));
        let stored = ("stored", Value::Bytes(&row.stored));
        self.delete_row.write(packet, &[prospect, device, key, stored]);
    }

    fn append_reads(
        &self,
        attempts: &[&mut Attempt],
        members: &[usize],
        rows_of: &[usize],
        packet: &mut Packet,
    ) -> Reads {
        let mut reads = Reads::default();
        if !rows_of.is_empty() {
            reads.rows = Some(packet.len());
            let devices = by_device(rows_of.iter().map(|at| {
                let session = attempts[*at].operation.session();
                (session, Value::Text(session.id_prospect.as_str()))
            }));
            let rows = devices.iter().map(|(device, prospects)| {
                [("id_device", Value::Text(device)), ("id_prospects", Value::List(prospects))]
            });
            self.read.write_rows(packet, &rows.collect::<Vec<_>>());
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
        reads
    }
}

/// The value of a statement's parameter.
pub(super) type NamedValue<'a> = (&'static str, Value<'a>);

/// What an acquire inserts: the lease is not dated yet.
struct Claim<'a> {
    acquire: &'a Acquire,
    replaced: Option<&'a Replace>,
    text: String,
}

fn claim<'a>(attempt: &'a Attempt) -> Option<Claim<'a>> {
    let Operation::Acquire(acquire, _) = attempt.operation else {
        return None;
    };
    let text = lease::claim(acquire.ttl, &acquire.owner_token);
    Some(Claim { acquire, replaced: attempt.replaced(), text })
}

impl Claim<'_> {
    fn values(&self, key: i64) -> [NamedValue<'_>; 9] {
        let Acquire { session, owner_token, .. } = self.acquire;
        let [prospect, device, owner] = lease_values(session, owner_token);
        let stored = self.replaced.map(|replaced| &*replaced.stored);
        let fencing_floor = self.replaced.map(|replaced| replaced.fencing_floor);
        [
            prospect,
            device,
            owner,
            ("key", Value::Signed(key)),
            ("claim", Value::Bytes(self.text.as_bytes())),
            ("mark", Value::Text(claim_mark())),
            ("stored", stored.map_or(Value::Null, Value::Bytes)),
            ("shift_us", shift_us(self.acquire.ttl.as_ms())),
            ("fencing_floor", Value::Number(fencing_floor.unwrap_or(0))),
        ]
    }
}

fn shift_us(lasts_ms: u64) -> Value<'static> {
    Value::Signed(date_shift_us(lasts_ms))
}

pub(super) fn session_values(session: &Session) -> [NamedValue<'_>; 2] {
    [
        ("id_prospect", Value::Text(session.id_prospect.as_str())),
        ("id_device", Value::Text(session.id_device.as_str())),
    ]
}

/// The database's errors are printed without owner tokens.
const _: () = assert!(OWNER_TOKEN_DIGITS == SECRET_DIGITS);

fn lease_values<'a>(session: &'a Session, owner_token: &'a OwnerToken) -> [NamedValue<'a>; 3] {
    let [prospect, device] = session_values(session);
    [prospect, device, ("owner_token", Value::Bytes(owner_token.secret().as_bytes()))]
}

fn message_value(message_id: &MessageId) -> NamedValue<'_> {
    ("message_id", Value::Bytes(message_id.as_str().as_bytes()))
}

fn record_values<'a>(lease: [NamedValue<'a>; 3], message: &'a Message) -> [NamedValue<'a>; 5] {
    let [prospect, device, owner] = lease;
    let result = message.result.as_deref().map(str::as_bytes);
    let result = ("result", result.map_or(Value::Null, Value::Bytes));
    [prospect, device, owner, message_value(&message.id), result]
}

/// Groups items by the devices of their sessions. A device has many sessions: a statement that
/// names it once for all of them is parsed and planned in a fraction of the time.
fn by_device<'a, T>(items: impl Iterator<Item = (&'a Session, T)>) -> Vec<(&'a str, Vec<T>)> {
    let mut devices: Vec<(&str, Vec<T>)> = Vec::new();
    for (session, item) in items {
        let device = session.id_device.as_str();
        match devices.iter_mut().find(|(known, _)| *known == device) {
            Some((_, items)) => items.push(item),
            None => devices.push((device, vec![item])),
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::db::PACKET_MAX_BYTES;
    use crate::lease::cases::{OTHER, acquire, lease, owner_token, read};
    use crate::lease::{Id, Release};
    use crate::store::FirstPacket;
    use crate::store::batch::BATCH_MAX;
    use crate::testing::statements;

    /// Sessions whose ids together are nearly as long as a request may be, each of another device.
    fn sessions() -> impl Iterator<Item = Session> {
        let longest = |number: usize| Id::new(&format!("{}{number:03}", "📱".repeat(120))).unwrap();
        (0..BATCH_MAX)
            .map(move |number| Session { id_device: longest(number), id_prospect: longest(number) })
    }

    #[test]
    fn no_batch_is_longer_than_the_longest_packet() {
        let message = Message {
            id: MessageId::new(&"m".repeat(255)).unwrap(),
            result: Some("\"".repeat(512)),
        };
        let acquires = sessions().map(|session| {
            let message_id = Some(message.id.clone());
            Operation::Acquire(Acquire { session, message_id, ..acquire() }, FirstPacket::Write)
        });
        let releases = sessions().map(|session| {
            let message = Some(message.clone());
            Operation::Release(Release { session, owner_token: owner_token(), message })
        });
        for operations in [acquires.collect::<Vec<_>>(), releases.collect()] {
            let mut attempts: Vec<_> = operations.iter().map(Attempt::new).collect();
            for attempt in &mut attempts {
                if matches!(attempt.operation, Operation::Acquire(..)) {
                    // The acquire replaces a stale row.
                    attempt.after_read(read(lease(OTHER, 1, -1_000), None, 0), Instant::now());
                }
            }
            let attempts: Vec<_> = attempts.iter_mut().collect();
            let (packet, _) = statements("t").write_packet(&attempts);
            assert!(packet.text().len() < PACKET_MAX_BYTES);
        }
    }
}
