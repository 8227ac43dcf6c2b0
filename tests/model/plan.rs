//! The product's part in the model: what has happened to an operation is replayed through its own
//! `Attempt`, which says what it sends next, as its own packet, or what it answers.
//!
//! The product measures with `Instant`; the model's clock is in the rows. So a replay happens in one moment
//! of real time, which stands for the moment of the last event, and each packet's time of sending lies
//! that far before it. The model's clock has steps of [`UNIT_US`], next to which the duration of a
//! replay is nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use session_lock::testing::{
    Acquire, Acquired, Answer, Attempt, Commit, Committed, FencingToken, FirstPacket, Force,
    Forced, Holder, How, Id, Message, MessageId, Operation, OwnerToken, Release, Released, Renew,
    Renewed, Row, Sharing, Snapshot, Statements, StoreError, StoredRecord, TokenOrigin, Ttl,
    statements,
};

use super::sql::{self, Owner, Session, Stmt};
use super::table::{Record, RowRead};

/// The least difference between two times: 20 s.
pub const UNIT_US: u64 = 20_000_000;

/// What workers ask for: an hour.
pub const TTL_US: u64 = 180 * UNIT_US;

/// The key of a new row, until the model has chosen one.
pub const NEW_KEY: i64 = i64::MAX;

static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| statements(sql::TABLE));

/// What somebody asks of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Whether its first packet only reads, which depends on what its server remembers.
    Acquire {
        reads_first: bool,
    },
    Renew,
    Commit,
    Release,
    /// A release with the message.
    Finish,
    /// By an operator.
    Force,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    pub verb: Verb,
    pub session: Session,
    pub owner: Owner,
    pub message: Option<sql::Message>,
    pub max_hold_us: u64,
    /// Whether the caller has drawn the owner token, and may ask again with it.
    pub is_callers_token: bool,
}

impl Request {
    pub fn new(verb: Verb, session: Session, owner: Owner) -> Self {
        Self { verb, session, owner, message: None, max_hold_us: 0, is_callers_token: false }
    }
}

/// What happened to an operation in its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    Read(Seen),
    Wrote(Seen),
    /// A single INSERT: the key and the fencing token, if it wrote a row.
    Inserted(Option<(i64, u64)>, u64),
    /// The packet that was sent then was lost.
    Lost(u64),
    /// Its packet was rolled back, with others'.
    Restarted,
    /// The releases of its packet were not all found.
    NotAllReleased,
    /// It waited too long for a lock.
    RowLocked,
    /// The server takes no writes.
    Refused,
}

/// What a packet read for one operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    pub row: Option<RowRead>,
    pub record: Option<Record>,
    pub changed: u64,
    /// The fencing token that its own statement wrote; 0 if it wrote none.
    pub written: u64,
    pub sent_us: u64,
}

/// An operation in its server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Progress {
    pub request: Request,
    pub events: Vec<Event>,
    /// When the last event was.
    pub at_us: u64,
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    Granted {
        fencing: u64,
        until_us: u64,
        how: &'static str,
    },
    Held,
    Duplicate,
    Renewed {
        until_us: u64,
    },
    MaxHold,
    Committed,
    Released,
    Lost,
    /// The fencing token, if the released lease had one.
    Forced(Option<u64>),
    NotHeld,
    /// 503; whether something may have been written.
    Unavailable(bool),
}

/// What a batch does next.
#[derive(Debug)]
pub enum Plan {
    Answer(Vec<Told>),
    Send(Sending),
}

impl Plan {
    pub fn sending(&self) -> Option<&Sending> {
        match self {
            Self::Send(sending) => Some(sending),
            Self::Answer(_) => None,
        }
    }
}

#[derive(Debug)]
pub struct Sending {
    /// The operations in the packet.
    pub members: Vec<usize>,
    pub reads: bool,
    pub stmts: Vec<Stmt>,
    /// For each member, the statement whose result is its own.
    pub own: Vec<Option<usize>>,
    pub is_plain_insert: bool,
}

/// Plans that are remembered, so that the memory goes to the states.
const PLANS_MAX: usize = 200_000;

thread_local! {
    static PLANS: RefCell<HashMap<Vec<Progress>, Rc<Plan>>> = RefCell::default();
}

/// What the server of these operations, which are one batch, does next.
pub fn plan(batch: &[Progress]) -> Rc<Plan> {
    PLANS.with_borrow_mut(|plans| {
        if let Some(plan) = plans.get(batch) {
            return Rc::clone(plan);
        }
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        let plan = Rc::new(think(batch));
        plans.insert(batch.to_vec(), Rc::clone(&plan));
        plan
    })
}

/// As `Batch::run`: those that share go first and together, then each of the others.
fn think(batch: &[Progress]) -> Plan {
    let operations: Vec<_> = batch.iter().map(|progress| operation(progress.request)).collect();
    let replay = |(progress, operation)| Replay::run(progress, operation);
    let mut replays: Vec<_> = batch.iter().zip(&operations).map(replay).collect();
    let open = |shares: bool, replays: &[Replay]| {
        let members = replays.iter().enumerate().filter(|(_, replay)| {
            let attempt = &replay.attempt;
            attempt.is_open() && (attempt.sharing != Sharing::Nothing) == shares
        });
        members.map(|(at, _)| at).collect::<Vec<_>>()
    };
    let mut group = open(true, &replays);
    if group.is_empty() {
        let mut alone = open(false, &replays);
        alone.sort_by_key(|at| batch[*at].request.message.is_some());
        group = alone.into_iter().take(1).collect();
    }
    if group.is_empty() {
        return Plan::Answer(replays.into_iter().map(Replay::answer).collect());
    }
    let reading: Vec<_> =
        group.iter().copied().filter(|at| replays[*at].attempt.is_reading()).collect();
    let reads = !reading.is_empty();
    let members = if reads { reading } else { group };
    let attempts = replays.iter_mut().enumerate().filter(|(at, _)| members.contains(at));
    let attempts: Vec<_> = attempts.map(|(_, replay)| &mut replay.attempt).collect();
    Plan::Send(send(&attempts, members, reads))
}

fn send(attempts: &[&mut Attempt], members: Vec<usize>, reads: bool) -> Sending {
    if reads {
        let (packet, _) = STATEMENTS.read_packet(attempts);
        let stmts = sql::parse(packet.text());
        return Sending {
            own: vec![None; members.len()],
            members,
            reads,
            stmts,
            is_plain_insert: false,
        };
    }
    let (packet, layout) = STATEMENTS.write_packet(attempts);
    let mut stmts = sql::parse(packet.text());
    for stmt in &mut stmts {
        if let Stmt::Acquire(claims) = stmt {
            for claim in claims.iter_mut().filter(|claim| layout.new_ids.contains(&claim.key)) {
                claim.key = NEW_KEY;
            }
        }
    }
    Sending { members, reads, stmts, own: layout.own, is_plain_insert: layout.is_plain_insert }
}

fn operation(request: Request) -> Operation {
    let Request { verb, owner, message, max_hold_us, .. } = request;
    let id = |text: &str| Id::new(text).expect("an id");
    let session = session_lock::testing::Session {
        id_device: id("d"),
        id_prospect: id(&format!("p{}", request.session)),
    };
    let owner_token = OwnerToken::new(&format!("{owner:020}")).expect("a token");
    let message_id = message.map(|number| MessageId::new(&format!("m{number}")).expect("an id"));
    let message = || message_id.clone().map(|id| Message { id, result: None });
    let ttl = Ttl::new(TTL_US / 1_000, u64::MAX).expect("a ttl");
    match verb {
        Verb::Acquire { reads_first } => {
            let first_packet = if reads_first { FirstPacket::Read } else { FirstPacket::Write };
            let is_callers = request.is_callers_token;
            let origin = if is_callers { TokenOrigin::Callers } else { TokenOrigin::Ours };
            let acquire = Acquire { session, owner_token, origin, ttl, message_id };
            Operation::Acquire(acquire, first_packet)
        }
        Verb::Renew => {
            let max_hold_ms = max_hold_us / 1_000;
            Operation::Renew(Renew { session, owner_token, ttl, max_hold_ms })
        }
        Verb::Commit => {
            let message = message().expect("a message to commit");
            Operation::Commit(Commit { session, owner_token, message })
        }
        Verb::Release => Operation::Release(Release { session, owner_token, message: None }),
        Verb::Finish => Operation::Release(Release { session, owner_token, message: message() }),
        Verb::Force => Operation::Force(Force { session, fencing_token: None }),
    }
}

struct Replay<'a> {
    attempt: Attempt<'a>,
    /// The real time that stands for `at_us`.
    now: Instant,
    at_us: u64,
}

impl<'a> Replay<'a> {
    fn run(progress: &Progress, operation: &'a Operation) -> Self {
        let (now, at_us) = (Instant::now(), progress.at_us);
        let mut replay = Self { attempt: Attempt::new(operation), now, at_us };
        for event in &progress.events {
            replay.follow(event);
        }
        replay
    }

    fn instant(&self, us: u64) -> Instant {
        self.now
            .checked_sub(Duration::from_micros(self.at_us - us))
            .expect("the clock reaches back")
    }

    fn follow(&mut self, event: &Event) {
        match event {
            Event::Read(seen) => {
                let sent = self.instant(seen.sent_us);
                self.attempt.after_read(read(seen), sent);
            }
            Event::Wrote(seen) => {
                let sent = self.instant(seen.sent_us);
                self.attempt.after_write(read(seen), sent);
            }
            Event::Inserted(row, sent_us) => {
                let sent = self.instant(*sent_us);
                self.attempt.after_insert(*row, sent);
            }
            Event::Lost(sent_us) => {
                let sent = self.instant(*sent_us);
                self.attempt.mark_lost(sent);
            }
            Event::Restarted => self.attempt.restart(),
            Event::NotAllReleased => {
                self.attempt.sharing = self.attempt.sharing.max(Sharing::Packet);
            }
            Event::RowLocked => self.attempt.fail(StoreError::RowLocked),
            Event::Refused => self.attempt.fail(StoreError::Unavailable("read-only".to_owned())),
        }
    }

    fn answer(self) -> Told {
        let (now, at_us) = (self.now, self.at_us);
        // To the nearest unit: what is beside it is the duration of this replay.
        let until_us = |expires: Instant| {
            let left_us = expires.saturating_duration_since(now).as_micros();
            let units = (u64::try_from(left_us).expect("a short time") + UNIT_US / 2) / UNIT_US;
            if units > 0 { at_us + units * UNIT_US } else { 0 }
        };
        match self.attempt.finish("") {
            Ok(Answer::Acquire(Acquired::Granted(lease))) => Told::Granted {
                fencing: lease.fencing_token.0,
                until_us: until_us(lease.expires),
                how: match lease.how {
                    How::New => "new",
                    How::Takeover(_) => "takeover",
                    How::Again => "again",
                },
            },
            Ok(Answer::Acquire(Acquired::Held(_))) => Told::Held,
            Ok(
                Answer::Acquire(Acquired::Duplicate(_)) | Answer::Commit(Committed::Duplicate(_)),
            ) => Told::Duplicate,
            Ok(Answer::Renew(Renewed::Renewed { expires, .. })) => {
                Told::Renewed { until_us: until_us(expires) }
            }
            Ok(Answer::Renew(Renewed::MaxHold)) => Told::MaxHold,
            Ok(Answer::Commit(Committed::New | Committed::Again)) => Told::Committed,
            Ok(Answer::Release(Released::Released)) => Told::Released,
            Ok(
                Answer::Renew(Renewed::Lost)
                | Answer::Commit(Committed::Lost)
                | Answer::Release(Released::Lost),
            ) => Told::Lost,
            Ok(Answer::Force(Forced::Released(holder))) => Told::Forced(match holder {
                Holder::Leased { fencing_token, .. } => Some(fencing_token.0),
                Holder::Legacy => None,
            }),
            Ok(Answer::Force(Forced::NotHeld)) => Told::NotHeld,
            Ok(other) => unreachable!("nobody asks for this: {other:?}"),
            Err(StoreError::OutcomeUnknown(..)) => Told::Unavailable(true),
            Err(_) => Told::Unavailable(false),
        }
    }
}

fn read(seen: &Seen) -> Snapshot {
    Snapshot {
        row: seen.row.as_ref().map(row),
        record: seen
            .record
            .map(|record| StoredRecord::new(format!("{:020}", record.owner).into_bytes(), 0, None)),
        changed: seen.changed,
        written: Some(FencingToken(seen.written)).filter(|_| seen.written > 0),
        began_us: 0,
    }
}

/// A row as the product reads it.
pub fn row(read: &RowRead) -> Row {
    let RowRead { row, clock_us, .. } = read;
    let age_us =
        row.content.date_us().map(|date_us| clock_us.cast_signed() - date_us.cast_signed());
    Row::new(row.key, row.content.text().into_bytes(), age_us, *clock_us)
}
