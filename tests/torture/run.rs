//! One run: clients that ask the servers while something fails, and what they record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use session_lock::testing::DATABASE;

use crate::client::Client;
use crate::conversation::{self, Conversation};
use crate::form::Form;
use crate::history::Event;
use crate::report::report;
use crate::world::{Proxy, Service, eventually};

/// Few conversations, so that clients meet.
pub const SESSIONS: usize = 16;

const CLIENTS: u64 = 24;

/// What all threads of a run share.
pub struct Run {
    pub began: Instant,
    pub done: AtomicBool,
    /// The addresses of the servers, which change with each restart.
    pub servers: Vec<RwLock<String>>,
    pub history: Mutex<Vec<Event>>,
    /// Requests without an answer: the server, when it was asked, and until when.
    pub unanswered: Mutex<Vec<(usize, Duration, Duration)>>,
    /// When which server was stopped, or about to be.
    pub absences: Mutex<Vec<(usize, Duration, Duration)>>,
    /// How often each fault happened. One that never did fails the run, if it is in here.
    pub faults: Mutex<BTreeMap<&'static str, u64>>,
    /// Answers with status 200, by the form of the request and by the spelling. None may be 0.
    pub accepted: Mutex<BTreeMap<&'static str, u64>>,
    pub slowest_ms: AtomicU64,
    /// How many messages the clients have made up.
    pub messages: AtomicU64,
}

impl Run {
    pub fn count(&self, fault: &'static str) {
        *self.faults.lock().unwrap().entry(fault).or_default() += 1;
    }

    /// Says that a fault must happen.
    pub fn require(&self, fault: &'static str) {
        self.faults.lock().unwrap().entry(fault).or_default();
    }

    pub fn count_accepted(&self, kinds: [&'static str; 2]) {
        let mut accepted = self.accepted.lock().unwrap();
        for kind in kinds {
            *accepted.entry(kind).or_default() += 1;
        }
    }
}

/// Servers that reach a database through a proxy each.
pub struct Servers<'a> {
    pub run: &'a Run,
    pub proxies: &'a [Proxy],
    pub services: Vec<Service>,
}

impl Servers<'_> {
    fn start(proxy: &Proxy) -> Service {
        Service::start_unready(&proxy.url(DATABASE), &[])
    }

    /// Ends a server with this signal, and starts a new one in its place.
    pub fn replace(&mut self, number: usize, signal: &str) {
        let from = self.run.began.elapsed();
        self.services[number].signal(signal);
        self.services[number].wait();
        self.services[number] = Self::start(&self.proxies[number]);
        let address = self.services[number].address.to_string();
        *self.run.servers[number].write().unwrap() = address;
        let absence = (number, from, self.run.began.elapsed());
        self.run.absences.lock().unwrap().push(absence);
    }
}

/// Lets clients ask one server for each proxy until `fail` has returned, and checks what they
/// recorded. Returns the number of operations.
pub fn run(name: &str, proxies: &[Proxy], seed: u64, fail: impl FnOnce(&mut Servers)) -> u64 {
    let services: Vec<_> = proxies.iter().map(Servers::start).collect();
    services.iter().for_each(Service::wait_until_ready);
    let address = |service: &Service| RwLock::new(service.address.to_string());
    let kinds = Form::ALL.into_iter().map(Form::name).chain(conversation::names());
    let run = Run {
        began: Instant::now(),
        done: AtomicBool::new(false),
        servers: services.iter().map(address).collect(),
        history: Mutex::default(),
        unanswered: Mutex::default(),
        absences: Mutex::default(),
        faults: Mutex::default(),
        accepted: Mutex::new(kinds.map(|kind| (kind, 0)).collect()),
        slowest_ms: 0.into(),
        messages: 0.into(),
    };
    let mut servers = Servers { run: &run, proxies, services };
    let sessions: Vec<_> = (0..SESSIONS).map(Conversation::new).collect();
    thread::scope(|scope| {
        for (number, form) in (0..CLIENTS).zip(Form::ALL.into_iter().cycle()) {
            let client = Client::new(&run, number, &sessions, form, seed);
            scope.spawn(move || client.run());
        }
        fail(&mut servers);
        run.done.store(true, Ordering::Relaxed);
    });
    // When nothing fails any more, every session can be acquired.
    for service in &servers.services {
        eventually(|| "ready again", || (service.get("/readyz").status == 200).then_some(()));
    }
    for session in &sessions {
        let (first, others) = session.spellings().split_first().expect("it has one");
        let reply = servers.services[0].acquire_waiting(first, 10_000);
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        for other in others {
            servers.services[0].acquire(other, json!({})).assert_held();
        }
    }
    report(name, seed, run)
}
