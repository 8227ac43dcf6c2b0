//! A provider that delivers every message one to five times, to workers that crash, pause and lose
//! answers, while the servers are killed and restarted. The tests count the replies that the
//! customers get.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mysql::prelude::Queryable;
use serde_json::{Value, json};
use session_lock::testing::OwnerToken;

use crate::world::{Reply, Schema, Service, Session, TABLE, TIMEOUT, World, http_agent, tests};

tests![
    nothing_is_sent_twice_if_the_commit_comes_before_the_sending,
    nothing_stays_unsent_if_the_release_comes_after_the_sending,
];

const SESSIONS: usize = 30;
const MESSAGES: usize = 40 * SESSIONS;
const WORKERS: u64 = 12;

/// The seed of the copies. A worker's seed is its number, which is above this.
const SEED: u64 = 0;

/// How many times a request is tried: a server may be down during many of them.
const TRIES: u32 = 500;

/// How many times a server is killed.
const KILL_INTERVAL: Duration = Duration::from_millis(400);

/// How a worker answers a message.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    CommitThenSend,
    SendThenRelease,
}

/// What happens to a worker while it has a message.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Works,
    CrashesBeforeItsReply,
    /// Between commit and sending, or between sending and release.
    CrashesInBetween,
    /// Its lease expires while it works, and it does not detect this.
    Overruns,
    /// The same, and it pauses for so long that others acquire the session.
    Pauses,
}

impl Fate {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u32(..12) {
            0 => Self::CrashesBeforeItsReply,
            1 => Self::CrashesInBetween,
            2 => Self::Overruns,
            3 => Self::Pauses,
            _ => Self::Works,
        }
    }
}

#[derive(Default)]
struct Message {
    session: usize,
    id: String,
    copies_left: AtomicU32,
    acknowledged: AtomicBool,
    sent: AtomicU32,
    /// A worker crashed between its commit and its sending.
    cut_off: AtomicBool,
}

impl Message {
    /// Whether the message must be delivered again: copies are left, or it was not acknowledged.
    fn take_copy(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.copies_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
            || !self.acknowledged.load(Ordering::SeqCst)
    }

    fn is_done(&self) -> bool {
        self.acknowledged.load(Ordering::SeqCst) && self.copies_left.load(Ordering::SeqCst) == 0
    }
}

/// Two servers on one table. A client whose server is down uses the other one.
struct Servers {
    url: String,
    services: [Mutex<Service>; 2],
    addresses: [Mutex<SocketAddr>; 2],
}

impl Servers {
    fn start(schema: &Schema) -> Self {
        let url = schema.url();
        let services = [(); 2].map(|()| Service::start(&url, &[]));
        let addresses = [0, 1].map(|number| Mutex::new(services[number].address));
        Self { url, addresses, services: services.map(Mutex::new) }
    }

    /// Kills a server in the middle of its requests, and starts another in its place.
    fn restart(&self, number: usize) {
        let mut service = self.services[number].lock().unwrap();
        service.signal("-KILL");
        *service = Service::start(&self.url, &[]);
        *self.addresses[number].lock().unwrap() = service.address;
    }

    /// Kills one after the other. Returns how many.
    fn restart_until(&self, over: &AtomicBool) -> usize {
        let mut kills = 0;
        while !over.load(Ordering::SeqCst) {
            thread::sleep(KILL_INTERVAL);
            self.restart(kills % 2);
            kills += 1;
        }
        kills
    }
}

/// What the workers share.
struct Provider {
    order: Order,
    servers: Servers,
    sessions: Vec<Session>,
    messages: Vec<Message>,
    deliveries: AtomicUsize,
    until: Instant,
}

struct Worker<'a> {
    provider: &'a Provider,
    rng: Rng,
    agent: ureq::Agent,
    database: mysql::Conn,
}

/// A lease as its worker sees it.
struct Lease<'a> {
    session: &'a Session,
    owner_token: String,
}

impl Lease<'_> {
    fn fields(&self) -> Value {
        self.session.with(json!({"owner_token": self.owner_token}))
    }

    fn fields_with(&self, message: &Message) -> Value {
        let mut fields = self.fields();
        fields["message_id"] = json!(message.id);
        fields
    }
}

impl<'a> Worker<'a> {
    fn new(provider: &'a Provider, number: u64, database: mysql::Conn) -> Self {
        let agent = http_agent(TIMEOUT);
        Self { provider, rng: Rng::with_seed(number), agent, database }
    }

    /// Takes deliveries until every message is done.
    fn run(mut self) {
        let Provider { messages, deliveries, until, .. } = self.provider;
        loop {
            // Each message is delivered to two workers at once.
            let number = deliveries.fetch_add(1, Ordering::SeqCst) / 2;
            let message = &messages[number % messages.len()];
            if message.take_copy() {
                let acknowledged = self.receive(message);
                // Some copies follow the first one at once.
                if self.rng.u32(..3) == 0 {
                    self.receive(message);
                }
                message.acknowledged.fetch_or(acknowledged, Ordering::SeqCst);
            } else if messages.iter().all(Message::is_done) {
                return;
            }
            assert!(Instant::now() < *until, "messages are never acknowledged");
        }
    }

    /// Repeats a request until there is an answer. Sometimes loses the answer, and repeats the
    /// request again.
    fn ask(&mut self, path: &str, body: &Value) -> Reply {
        let mut answers_to_lose = u32::from(self.rng.u32(..6) == 0);
        for _ in 0..TRIES {
            let number = self.rng.usize(..2);
            let address = *self.provider.servers.addresses[number].lock().unwrap();
            let request = self.agent.post(format!("http://{address}{path}"));
            match Reply::try_read(request.send(body.to_string())) {
                Ok(reply) if reply.status == 503 => thread::sleep(Duration::from_millis(10)),
                Ok(_) if answers_to_lose > 0 => answers_to_lose -= 1,
                Ok(reply) => return reply,
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
        panic!("{path} {body} is never answered");
    }

    /// Lets this lease, and no other, expire.
    fn expire(&mut self, lease: &Lease) {
        let Lease { session, owner_token } = lease;
        let sql = format!(
            "UPDATE {TABLE} SET timestamp = CONCAT('2020-01-01', SUBSTRING(timestamp, 11)) \
             WHERE {session} AND RIGHT(timestamp, 20) = '{owner_token}'"
        );
        // The statement may be rolled back in a deadlock with the servers.
        while self.database.query_drop(&sql).is_err() {}
    }

    /// Handles one delivery. Returns whether it is acknowledged to the provider.
    fn receive(&mut self, message: &Message) -> bool {
        let session = &self.provider.sessions[message.session];
        let lease = Lease { session, owner_token: OwnerToken::draw().secret().to_owned() };
        let mut acquire = lease.fields_with(message);
        acquire["wait_ms"] = json!(self.rng.u32(..3) * 50);
        let reply = self.ask("/v1/acquire", &acquire);
        match (reply.status, reply.json["reason"].as_str()) {
            (200, _) => {}
            (409, Some("duplicate")) => return true,
            (409, Some("held")) => return false,
            _ => panic!("{reply:?}"),
        }
        let fate = Fate::draw(&mut self.rng);
        if matches!(fate, Fate::CrashesBeforeItsReply | Fate::Overruns | Fate::Pauses) {
            self.expire(&lease);
        }
        match fate {
            Fate::CrashesBeforeItsReply => return false,
            Fate::Pauses => thread::sleep(Duration::from_millis(100)),
            _ => {}
        }
        match self.provider.order {
            Order::CommitThenSend => self.commit_then_send(message, &lease, fate),
            Order::SendThenRelease => self.send_then_release(message, &lease, fate),
        }
    }

    fn commit_then_send(&mut self, message: &Message, lease: &Lease, fate: Fate) -> bool {
        let committed = self.ask("/v1/commit", &lease.fields_with(message));
        match (committed.status, committed.json["reason"].as_str()) {
            (200, _) if fate == Fate::CrashesInBetween => {
                message.cut_off.store(true, Ordering::SeqCst);
                self.expire(lease);
                false
            }
            (200, _) => {
                message.sent.fetch_add(1, Ordering::SeqCst);
                self.ask("/v1/release", &lease.fields());
                true
            }
            (409, reason) => reason == Some("duplicate"),
            _ => panic!("{committed:?}"),
        }
    }

    fn send_then_release(&mut self, message: &Message, lease: &Lease, fate: Fate) -> bool {
        message.sent.fetch_add(1, Ordering::SeqCst);
        if fate == Fate::CrashesInBetween {
            self.expire(lease);
            return false;
        }
        // `lost` may mean released, if the first answer was lost. Another delivery will show which.
        self.ask("/v1/release", &lease.fields_with(message)).status == 200
    }
}

/// Delivers every message until it is acknowledged.
fn deliver_all(world: &World, order: Order) -> Vec<Message> {
    let schema = world.own_table();
    let mut rng = Rng::with_seed(SEED);
    let message = |number: usize| Message {
        session: number % SESSIONS,
        id: format!("wamid.HBgL{number}"),
        copies_left: rng.u32(1..=5).into(),
        ..Message::default()
    };
    let provider = Provider {
        order,
        servers: Servers::start(&schema),
        sessions: (0..SESSIONS).map(|_| Session::new()).collect(),
        messages: (0..MESSAGES).map(message).collect(),
        deliveries: 0.into(),
        until: Instant::now() + TIMEOUT * 4,
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let start = |number| {
            let worker = Worker::new(&provider, number, schema.connect());
            scope.spawn(move || worker.run())
        };
        let workers: Vec<_> = (1..=WORKERS).map(start).collect();
        let killer = scope.spawn(|| provider.servers.restart_until(&over));
        let ends: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        assert!(killer.join().unwrap() > 1, "servers were killed");
        assert!(ends.iter().all(Result::is_ok), "a worker failed");
    });
    provider.messages
}

fn count(messages: &[Message], wanted: impl Fn(&Message) -> bool) -> usize {
    messages.iter().filter(|message| wanted(message)).count()
}

fn nothing_is_sent_twice_if_the_commit_comes_before_the_sending(world: &World) {
    let messages = deliver_all(world, Order::CommitThenSend);
    let sent = |message: &Message| message.sent.load(Ordering::SeqCst);
    let cut_off = |message: &Message| message.cut_off.load(Ordering::SeqCst);
    assert_eq!(count(&messages, |message| sent(message) > 1), 0, "sent twice");
    let unsent = count(&messages, |message| sent(message) == 0 && !cut_off(message));
    assert_eq!(unsent, 0, "never sent, and not cut off");
    assert!(count(&messages, cut_off) > 10, "too few workers crashed");
}

fn nothing_stays_unsent_if_the_release_comes_after_the_sending(world: &World) {
    let messages = deliver_all(world, Order::SendThenRelease);
    let sent = |message: &Message| message.sent.load(Ordering::SeqCst);
    assert_eq!(count(&messages, |message| sent(message) == 0), 0, "never sent");
    let twice = count(&messages, |message| sent(message) > 1);
    assert!(twice > 0, "with this order some messages must be sent twice");
}
