//! Everything fails at once, on both databases: many clients on few conversations, two or three
//! servers, and a database, a network and servers that die, hang and come back. What the clients saw
//! is written down and checked afterwards (`history`).
//!
//! `SECONDS` and `SEED` in the environment say how long and which, `GALERA` for how many seconds a
//! cluster is tortured afterwards; `make torture` sets them.

mod galera;
mod history;
#[allow(dead_code, unused_macros, unused_imports)]
#[path = "../it/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use session_lock::testing::DATABASE;
use session_lock::testing::OwnerToken;

use history::{Event, What};
use world::{DatabaseServer, Engine, Fault, Proxy, Reply, Service, Session, migrate};

/// How long it takes by default, in CI: both databases side by side.
const SECONDS_DEFAULT: u64 = 120;

/// Few conversations, so that clients meet.
const SESSIONS: usize = 16;

const CLIENTS: usize = 24;

/// Every request ends so soon; a slow machine has some time on top.
const ENDS_WITHIN: Duration = Duration::from_secs(12);

/// Of both databases together, in [`SECONDS_DEFAULT`].
const OPERATIONS_LEAST: u64 = 20_000;

fn main() {
    let number = |name, default| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.map_or(default, |value| value.parse().expect("SECONDS, SEED and GALERA are numbers"))
    };
    history::check_the_checker();
    let seconds = number("SECONDS", SECONDS_DEFAULT);
    let seed = number("SEED", fastrand::u64(..1_000_000));
    println!("torture: SECONDS={seconds} SEED={seed}");
    let lasts = Duration::from_secs(seconds);
    let operations: u64 = thread::scope(|scope| {
        let tortures = [
            scope.spawn(|| torture(Engine::MariaDb, 2, lasts, seed)),
            scope.spawn(|| torture(Engine::MySql, 3, lasts, seed)),
        ];
        let found = |torture: thread::ScopedJoinHandle<_>| torture.join().expect("see above");
        tortures.into_iter().map(found).sum()
    });
    let least = OPERATIONS_LEAST * seconds / SECONDS_DEFAULT;
    assert!(operations >= least, "{operations} operations of {least}: too slow to find anything");
    galera::torture(Duration::from_secs(number("GALERA", 0)), seed);
}

/// What is shared by those who break and those who ask.
struct Scene {
    began: Instant,
    done: AtomicBool,
    /// Where the servers are now.
    servers: Vec<RwLock<String>>,
    history: Mutex<Vec<Event>>,
    /// Requests without an answer: the server, when it was asked, and until when.
    unanswered: Mutex<Vec<(usize, Duration, Duration)>>,
    /// When which server was not there, or about to end.
    absences: Mutex<Vec<(usize, Duration, Duration)>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    slowest_ms: AtomicU64,
    messages: AtomicU64,
}

impl Scene {
    fn count(&self, fault: &'static str) {
        *self.faults.lock().unwrap().entry(fault).or_default() += 1;
    }
}

/// Servers that reach a database through a proxy each.
struct Servers<'a> {
    scene: &'a Scene,
    proxies: &'a [Proxy],
    services: Vec<Service>,
}

impl Servers<'_> {
    fn start(proxy: &Proxy) -> Service {
        Service::start_unready(&proxy.url(DATABASE), &[])
    }

    /// Ends a server with this signal, and starts it afresh.
    fn replace(&mut self, number: usize, signal: &str) {
        let from = self.scene.began.elapsed();
        self.services[number].signal(signal);
        self.services[number].wait();
        self.services[number] = Self::start(&self.proxies[number]);
        let address = self.services[number].address.to_string();
        *self.scene.servers[number].write().unwrap() = address;
        let absence = (number, from, self.scene.began.elapsed());
        self.scene.absences.lock().unwrap().push(absence);
    }
}

fn torture(engine: Engine, servers: usize, lasts: Duration, seed: u64) -> u64 {
    let mut database = DatabaseServer::start(engine, &[]);
    migrate(&database.url(DATABASE));
    let to = ([127, 0, 0, 1], database.port).into();
    let proxies: Vec<_> = (0..servers).map(|_| Proxy::start(to)).collect();
    storm(engine.name(), &proxies, seed, |servers| {
        let mut rng = Rng::with_seed(seed);
        while servers.scene.began.elapsed() < lasts {
            thread::sleep(Duration::from_millis(rng.u64(200..2_000)));
            let fault = break_something(&mut rng, &mut database, servers);
            servers.scene.count(fault);
        }
    })
}

/// Clients ask a server for each proxy, while and until something is done to them; how many
/// operations that were.
fn storm(name: &str, proxies: &[Proxy], seed: u64, torment: impl FnOnce(&mut Servers)) -> u64 {
    let services: Vec<_> = proxies.iter().map(Servers::start).collect();
    for service in &services {
        service.wait_for_line("INFO  ready");
    }
    let address = |service: &Service| RwLock::new(service.address.to_string());
    let scene = Scene {
        began: Instant::now(),
        done: AtomicBool::new(false),
        servers: services.iter().map(address).collect(),
        history: Mutex::default(),
        unanswered: Mutex::default(),
        absences: Mutex::default(),
        faults: Mutex::default(),
        slowest_ms: 0.into(),
        messages: 0.into(),
    };
    let mut servers = Servers { scene: &scene, proxies, services };
    let sessions: Vec<_> = (0..SESSIONS).map(|_| Session::new()).collect();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let client = Client::new(&scene, &sessions, seed + number as u64);
            scope.spawn(move || client.live());
        }
        torment(&mut servers);
        scene.done.store(true, Ordering::Relaxed);
    });
    // A last word of everybody: what nobody holds is free.
    for service in &servers.services {
        world::eventually(
            || "ready again",
            || (service.get("/readyz").status == 200).then_some(()),
        );
    }
    for session in &sessions {
        let reply = servers.services[0].acquire(session, json!({"wait_ms": 10_000}));
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
    }
    report(name, scene)
}

fn report(name: &str, scene: Scene) -> u64 {
    let history = scene.history.into_inner().unwrap();
    let faults = scene.faults.into_inner().unwrap();
    let slowest_ms = scene.slowest_ms.into_inner();
    let unanswered = scene.unanswered.into_inner().unwrap();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &history {
        let word = match &event.what {
            What::Granted { how, .. } => how,
            What::Held => "held",
            What::AnsweredAlready | What::CommittedAlready => "answered already",
            What::Renewed { .. } => "renewed",
            What::Committed(_) => "committed",
            What::Released(_) => "released",
            What::Lost(_) => "lost",
            What::AcquireUnknown
            | What::CommitUnknown
            | What::ReleaseUnknown(_)
            | What::RenewUnknown => "without an answer, or 503",
        };
        *counts.entry(word).or_default() += 1;
    }
    println!(
        "{name}: {} operations: {counts:?}; without any answer {}; faults: {faults:?}; slowest answer {slowest_ms} ms",
        history.len(),
        unanswered.len()
    );
    let mut wrong = history::check(&history);
    let absences = scene.absences.into_inner().unwrap();
    wrong.extend(unanswered.iter().filter_map(|asked| {
        let (server, called, until) = asked;
        let is_excused = absences
            .iter()
            .any(|(absent, from, to)| absent == server && called <= to && from <= until);
        (!is_excused).then(|| format!("nobody answered, and no server had ended: {asked:?}"))
    }));
    for text in wrong.iter().take(10) {
        println!("{name}: {text}");
    }
    assert!(wrong.is_empty(), "{name}: {} things are wrong", wrong.len());
    assert!(u128::from(slowest_ms) < ENDS_WITHIN.as_millis(), "a request took {slowest_ms} ms");
    history.len() as u64
}

/// One fault, from its beginning to its end.
fn break_something(
    rng: &mut Rng,
    database: &mut DatabaseServer,
    servers: &mut Servers,
) -> &'static str {
    let pause = Duration::from_millis(rng.u64(100..4_000));
    let victim = rng.usize(..servers.services.len());
    match rng.u32(..13) {
        0 => {
            database.freeze();
            thread::sleep(pause);
            database.thaw();
            "database frozen"
        }
        1 => {
            database.crash();
            thread::sleep(pause / 4);
            database.restart();
            "database killed"
        }
        2 => {
            servers.replace(victim, "-KILL");
            "server killed"
        }
        3 => {
            servers.replace(victim, "-TERM");
            "server restarted"
        }
        4 => {
            for number in 0..servers.services.len() {
                servers.replace(number, "-TERM");
                thread::sleep(pause / 10);
            }
            "servers restarted in turn"
        }
        5 => {
            servers.services[victim].signal("-STOP");
            thread::sleep(pause);
            servers.services[victim].signal("-CONT");
            "server paused"
        }
        number => {
            let (fault, name) = match number {
                6 => (Fault::Reset, "network cut"),
                7 => (Fault::Hold, "network held"),
                8 => (Fault::Discard, "network silent"),
                9 => (Fault::DiscardReplies, "answers lost"),
                10 => (Fault::HoldWrites, "writes late"),
                11 => (Fault::Delay(Duration::from_millis(rng.u64(1..300))), "network slow"),
                _ => (Fault::Reset, "network cut in a blink"),
            };
            let met = if rng.bool() { servers.proxies } else { &servers.proxies[victim..=victim] };
            for proxy in met {
                proxy.set(fault);
            }
            thread::sleep(if number > 11 { pause / 40 } else { pause });
            for proxy in met {
                proxy.set(Fault::None);
            }
            name
        }
    }
}

/// A bot's worker: takes a conversation, renews, commits, releases, and crashes now and then.
struct Client<'a> {
    scene: &'a Scene,
    sessions: &'a [Session],
    rng: Rng,
    agent: ureq::Agent,
}

/// What came back, and when it was asked for and came.
struct Answered {
    called: Duration,
    came: Duration,
    reply: Option<Reply>,
}

impl Answered {
    fn status(&self) -> u16 {
        self.reply.as_ref().map_or(0, |reply| reply.status)
    }

    fn text(&self, field: &str) -> Option<String> {
        let reply = self.reply.as_ref()?;
        reply.json[field].as_str().map(str::to_owned)
    }

    fn remaining(&self) -> Duration {
        let reply = self.reply.as_ref().expect("it is an answer");
        Duration::from_millis(reply.number("remaining_ms"))
    }
}

impl<'a> Client<'a> {
    fn new(scene: &'a Scene, sessions: &'a [Session], seed: u64) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)));
        Self {
            scene,
            sessions,
            rng: Rng::with_seed(seed),
            agent: ureq::Agent::new_with_config(config.build()),
        }
    }

    fn live(mut self) {
        while !self.scene.done.load(Ordering::Relaxed) {
            self.turn();
        }
    }

    fn ask(&mut self, path: &str, body: &Value) -> Answered {
        // Any server will do, each time.
        let number = self.rng.usize(..self.scene.servers.len());
        let server = self.scene.servers[number].read().unwrap().clone();
        let called = self.scene.began.elapsed();
        let request = self.agent.post(format!("http://{server}{path}"));
        let reply = Reply::try_read(request.send(body.to_string())).ok();
        let came = self.scene.began.elapsed();
        if let Some(reply) = &reply {
            assert!(matches!(reply.status, 200 | 409 | 503), "{reply:?}");
            let waited = Duration::from_millis(body["wait_ms"].as_u64().unwrap_or(0));
            let took = came.saturating_sub(called + waited).as_millis();
            let took = u64::try_from(took).unwrap_or(u64::MAX);
            self.scene.slowest_ms.fetch_max(took, Ordering::Relaxed);
        } else {
            let asked = (number, called, came);
            self.scene.unanswered.lock().unwrap().push(asked);
            thread::sleep(Duration::from_millis(20));
        }
        Answered { called, came, reply }
    }

    fn note(&self, session: usize, message: Option<u64>, answered: &Answered, what: What) {
        let event =
            Event { session, message, called: answered.called, answered: answered.came, what };
        self.scene.history.lock().unwrap().push(event);
    }

    fn acquire(&mut self, session: usize, message: Option<u64>, ttl_ms: u64) -> Option<String> {
        let mut body = self.sessions[session].with(json!({"ttl_ms": ttl_ms}));
        if self.rng.bool() {
            body["owner_token"] = json!(OwnerToken::draw().secret());
        }
        if self.rng.u32(..4) == 0 {
            body["wait_ms"] = json!(self.rng.u64(..1_500));
        }
        if let Some(message) = message {
            body["message_id"] = json!(format!("message-{message}"));
        }
        for _ in 0..4 {
            let answered = self.ask("/v1/acquire", &body);
            let what = match (answered.status(), answered.text("reason").as_deref()) {
                (200, _) => What::Granted {
                    token: answered.text("owner_token")?,
                    fencing_token: answered.reply.as_ref()?.number("fencing_token"),
                    remaining: answered.remaining(),
                    how: answered.text("how")?,
                },
                (409, Some("held")) => What::Held,
                (409, _) => What::AnsweredAlready,
                _ => What::AcquireUnknown,
            };
            self.note(session, message, &answered, what.clone());
            match what {
                What::Granted { token, .. } => return Some(token),
                What::AcquireUnknown => {
                    // As it is told to: the same again, with the token if there is one.
                    if let Some(token) = answered.text("owner_token") {
                        body["owner_token"] = json!(token);
                    }
                    thread::sleep(Duration::from_millis(self.rng.u64(1..400)));
                    if self.rng.u32(..3) == 0 {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        None
    }

    fn turn(&mut self) {
        let session = self.rng.usize(..self.sessions.len());
        let message = match self.rng.u32(..3) {
            // One of its own, one that others have now, none.
            0 => Some(self.scene.messages.fetch_add(1, Ordering::Relaxed) * 2 + 1),
            1 => {
                Some((self.scene.began.elapsed().as_secs() * SESSIONS as u64 + session as u64) * 2)
            }
            _ => None,
        };
        let ttl_ms = self.rng.u64(1_000..5_000);
        let Some(token) = self.acquire(session, message, ttl_ms) else {
            thread::sleep(Duration::from_millis(self.rng.u64(..10)));
            return;
        };
        let mut work_ms = self.rng.u64(..20);
        if ttl_ms < 1_200 {
            // It dawdles, and somebody else may take over.
            work_ms += self.rng.u64(500..2_000);
        }
        thread::sleep(Duration::from_millis(work_ms));
        let owned = self.sessions[session].with(json!({"owner_token": token}));
        if self.rng.u32(..20) == 0 {
            // It crashes.
            return;
        }
        if self.rng.u32(..4) == 0 {
            let mut body = owned.clone();
            // Never less than what it has.
            body["ttl_ms"] = json!(5_000);
            let answered = self.ask("/v1/renew", &body);
            let what = match answered.status() {
                200 => What::Renewed { token: token.clone(), remaining: answered.remaining() },
                409 => What::Lost(token.clone()),
                _ => What::RenewUnknown,
            };
            self.note(session, None, &answered, what);
        }
        if let Some(message) = message {
            let mut body = owned.clone();
            body["message_id"] = json!(format!("message-{message}"));
            for _ in 0..3 {
                let answered = self.ask("/v1/commit", &body);
                let what = match (answered.status(), answered.text("reason").as_deref()) {
                    (200, _) => What::Committed(token.clone()),
                    (409, Some("duplicate")) => What::CommittedAlready,
                    (409, _) => What::Lost(token.clone()),
                    _ => What::CommitUnknown,
                };
                let is_unknown = matches!(what, What::CommitUnknown);
                self.note(session, Some(message), &answered, what);
                if !is_unknown {
                    break;
                }
            }
        }
        let answered = self.ask("/v1/release", &owned);
        let what = match answered.status() {
            200 => What::Released(token),
            409 => What::Lost(token),
            _ => What::ReleaseUnknown(token),
        };
        self.note(session, None, &answered, what);
    }
}
