//! A provider that delivers every message one to five times, to workers that crash, pause and lose
//! answers, while the servers are killed and restarted. What counts is what the customer gets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::{Value, json};
use session_lock::testing::OwnerToken;

use crate::world::{PATIENCE, Reply, Schema, Service, Session, TABLE, World, tests};

tests![
    nothing_is_sent_twice_if_the_commit_comes_before_the_sending,
    nothing_stays_unsent_if_the_release_comes_after_the_sending,
];

const SESSIONS: u64 = 30;
const MESSAGES_EACH: u64 = 40;
const WORKERS: u64 = 12;

/// Tries of one request; its server may be down for some of them.
const TRIES: u32 = 500;

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
    /// Its lease runs out while it works, and it does not notice.
    Overruns,
    /// The same, and others have come meanwhile.
    Pauses,
}

#[derive(Default)]
struct Message {
    session: usize,
    id: String,
    copies_left: AtomicU32,
    acknowledged: AtomicBool,
    sent: AtomicU32,
    cut_off: AtomicBool,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Two servers on one table; whoever asks a dead one asks the other.
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

    /// Kills one, with whatever it was at, and starts another in its place.
    fn restart(&self, number: usize) {
        let mut service = self.services[number].lock().unwrap();
        service.signal("-KILL");
        *service = Service::start(&self.url, &[]);
        *self.addresses[number].lock().unwrap() = service.address;
    }
}

struct Worker<'a> {
    servers: &'a Servers,
    sessions: &'a [Session],
    order: Order,
    random: Random,
    agent: ureq::Agent,
    database: mysql::Conn,
}

impl Worker<'_> {
    /// Asks until there is an answer; now and then it gets lost, and is asked for again.
    fn ask(&mut self, path: &str, body: &Value) -> Reply {
        let mut answers_to_lose = u64::from(self.random.below(6) == 0);
        for _ in 0..TRIES {
            let number = usize::try_from(self.random.below(2)).unwrap();
            let address = *self.servers.addresses[number].lock().unwrap();
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

    /// Lets this lease, and no other, run out.
    fn expire(&mut self, session: &Session, owner_token: &str) {
        let sql = format!(
            "UPDATE {TABLE} SET timestamp = CONCAT('2020-01-01', SUBSTRING(timestamp, 11)) \
             WHERE {session} AND RIGHT(timestamp, 20) = '{owner_token}'"
        );
        // It may lose a deadlock against the servers.
        while self.database.query_drop(&sql).is_err() {}
    }

    /// Handles one delivery; whether the provider is told that all is well.
    fn receive(&mut self, message: &Message) -> bool {
        let session = &self.sessions[message.session];
        let owner_token = OwnerToken::draw().secret().to_owned();
        let id = &message.id;
        let with_message = session.with(json!({"owner_token": owner_token, "message_id": id}));
        let mut acquire = with_message.clone();
        acquire["wait_ms"] = json!(self.random.below(3) * 50);
        let reply = self.ask("/v1/acquire", &acquire);
        match (reply.status, reply.json["reason"].as_str()) {
            (200, _) => {}
            (409, Some("duplicate")) => return true,
            (409, Some("held")) => return false,
            _ => panic!("{reply:?}"),
        }
        let fate = match self.random.below(12) {
            0 => Fate::CrashesBeforeItsReply,
            1 => Fate::CrashesInBetween,
            2 => Fate::Overruns,
            3 => Fate::Pauses,
            _ => Fate::Works,
        };
        match fate {
            Fate::CrashesBeforeItsReply => {
                self.expire(session, &owner_token);
                return false;
            }
            Fate::Overruns => self.expire(session, &owner_token),
            Fate::Pauses => {
                self.expire(session, &owner_token);
                thread::sleep(Duration::from_millis(100));
            }
            Fate::Works | Fate::CrashesInBetween => {}
        }
        let is_through = match self.order {
            Order::CommitThenSend => {
                let committed = self.ask("/v1/commit", &with_message);
                match (committed.status, committed.json["reason"].as_str()) {
                    (200, _) if fate == Fate::CrashesInBetween => {
                        message.cut_off.store(true, Ordering::SeqCst);
                        false
                    }
                    (200, _) => {
                        message.sent.fetch_add(1, Ordering::SeqCst);
                        true
                    }
                    (409, reason) => return reason == Some("duplicate"),
                    _ => panic!("{committed:?}"),
                }
            }
            Order::SendThenRelease => {
                message.sent.fetch_add(1, Ordering::SeqCst);
                fate != Fate::CrashesInBetween
            }
        };
        if !is_through {
            self.expire(session, &owner_token);
            return false;
        }
        let release = match self.order {
            Order::CommitThenSend => session.with(json!({"owner_token": owner_token})),
            Order::SendThenRelease => with_message,
        };
        let released = self.ask("/v1/release", &release);
        // Lost may mean released, if that answer was lost: another delivery shows.
        released.status == 200 || self.order == Order::CommitThenSend
    }
}

/// Delivers every message to the end.
fn deliver_all(world: &World, order: Order) -> Vec<Message> {
    let schema = world.own_table();
    let servers = Servers::start(&schema);
    let sessions: Vec<_> = (0..SESSIONS).map(|_| Session::new()).collect();
    let mut random = Random(1);
    let messages: Vec<_> = (0..SESSIONS * MESSAGES_EACH)
        .map(|number| Message {
            session: usize::try_from(number % SESSIONS).unwrap(),
            id: format!("wamid.HBgL{number}"),
            copies_left: AtomicU32::new(1 + u32::try_from(random.below(5)).unwrap()),
            ..Message::default()
        })
        .collect();
    let (next, over) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let until = Instant::now() + PATIENCE * 4;
    thread::scope(|scope| {
        let workers: Vec<_> = (1..=WORKERS)
            .map(|number| {
                let (messages, next) = (&messages, &next);
                let mut worker = Worker {
                    servers: &servers,
                    sessions: &sessions,
                    order,
                    random: Random(number),
                    agent: ureq::Agent::config_builder()
                        .http_status_as_error(false)
                        .timeout_global(Some(PATIENCE))
                        .build()
                        .into(),
                    database: schema.connect(),
                };
                scope.spawn(move || {
                    // Round after round, until each message has been delivered as often as it
                    // is, and acknowledged once after that.
                    loop {
                        let turn = next.fetch_add(1, Ordering::SeqCst);
                        // Each is delivered to two workers at once.
                        let place = usize::try_from(turn / 2).unwrap() % messages.len();
                        let message = &messages[place];
                        let copies = message.copies_left.fetch_update(
                            Ordering::SeqCst,
                            Ordering::SeqCst,
                            |left| left.checked_sub(1),
                        );
                        if copies.is_ok() || !message.acknowledged.load(Ordering::SeqCst) {
                            let acknowledged = worker.receive(message);
                            // Some copies come at once, behind the first.
                            if worker.random.below(3) == 0 {
                                worker.receive(message);
                            }
                            message.acknowledged.fetch_or(acknowledged, Ordering::SeqCst);
                        } else if messages.iter().all(|message| {
                            message.acknowledged.load(Ordering::SeqCst)
                                && message.copies_left.load(Ordering::SeqCst) == 0
                        }) {
                            return;
                        }
                        assert!(Instant::now() < until, "messages are never acknowledged");
                    }
                })
            })
            .collect();
        let (over_too, servers) = (Arc::clone(&over), &servers);
        let killer = scope.spawn(move || {
            let mut kills = 0;
            while !over_too.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(400));
                servers.restart(kills % 2);
                kills += 1;
            }
            kills
        });
        let ends: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        assert!(killer.join().unwrap() > 1, "servers were killed");
        assert!(ends.iter().all(Result::is_ok), "a worker failed");
    });
    messages
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
    assert!(count(&messages, cut_off) > 10, "the storm was too gentle");
}

fn nothing_stays_unsent_if_the_release_comes_after_the_sending(world: &World) {
    let messages = deliver_all(world, Order::SendThenRelease);
    let sent = |message: &Message| message.sent.load(Ordering::SeqCst);
    assert_eq!(count(&messages, |message| sent(message) == 0), 0, "never sent");
    let twice = count(&messages, |message| sent(message) > 1);
    assert!(twice > 0, "the price of this order shows: {twice} were sent twice");
}
