//! The listener: `tiny_http`, worker threads, limits, stopping.
//!
//! `tiny_http` 0.12 does a few things badly, and every remedy is in this file, with its reason:
//! a forged `Content-Length` (`refuse_unread`), a body that never comes (`read_body`), connections
//! that it accepts and forgets and heads without end (`Doorkeeper`), an accept that fails
//! ([`Ending::Failed`]), answers that wait for each other (`InTurn`, `aside`). One fault has no
//! remedy here: a request of HTTP/2 or 3 leaves a thread and two descriptors behind in
//! `tiny_http`; when those run out, the process ends and is started afresh.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use rustix::net::Shutdown;
use signal_hook::consts::{SIGINT, SIGTERM};
use tiny_http::{Header, Method};

use crate::background::{self, IDLE_PATIENCE, TICK_PERIOD};
use crate::config::{Config, Listen};
use crate::doctor::Finding;
use crate::http::api::{
    self, Api, Asked, BATCH_MAX, BODY_MAX_BYTES, HTML, Refusal, Request, Response,
};
use crate::http::listener::{Door, Seen, shut_down};
use crate::metrics::METRICS;
use crate::queue::Portion;
use crate::store::Store;
use crate::systemd;

/// A refused body up to this size is skipped, and nothing stays behind. A longer one cannot be
/// skipped safely; see `refuse_unread`.
const SKIP_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Connections that `refuse_unread` may leave behind before the process makes a fresh start;
/// each costs a thread and two descriptors, of which the unit allows 8,192. Where there are fewer, these
/// run out before, to the same effect.
const LEFT_BEHIND_MAX: i64 = 1_000;

/// Requests that a client may send before its last one is answered: bots send one at a time, so this
/// is for the rare client that pipelines, and bounds what a client without manners keeps in memory.
const PIPELINED_MAX: usize = 16;

/// Answers that may wait in threads of their own; see [`Shared::aside`]. Each takes one of the 8,192
/// tasks that the unit allows, of which waiters need half.
const ASIDE_MAX: usize = 500;

/// With so many of them, clients that do not read are cut off with less patience: well before the
/// last of [`ASIDE_MAX`] is taken, and more than honest clients ever need at once.
const ASIDE_CROWD: usize = 100;

/// How long to wait for such threads to end: longer than any client is waited for.
const ASIDE_PATIENCE: Duration = Duration::from_secs(3);

/// A client of a Unix socket whose answers have not fitted for so long is cut off: it is on this
/// machine, and reads within milliseconds if it reads at all. In a crowd, sooner.
const DEAF_PATIENCE: Duration = Duration::from_secs(1);
const CROWD_PATIENCE: Duration = Duration::from_millis(150);

/// Between two nudges while requests come in: a connection that was forgotten in a burst waits a
/// few of these at most.
const NUDGE_PERIOD: Duration = Duration::from_millis(20);

/// Nudges at once, while they bring forgotten connections to light.
const NUDGE_BURST_MAX: u32 = 64;

/// Nudges after the last request, for the connections of a burst whose turn has not come.
const NUDGES_AFTER_TRAFFIC: u32 = 10;

/// Between two nudges of an idle server: next to nothing, and the longest that a connection
/// waits which was forgotten without a request near it.
const NUDGE_IDLE_PERIOD: Duration = Duration::from_secs(1);

/// Between two looks at how much memory the process takes: a single client's head without end
/// adds 50 MB or so in this time.
const MEMORY_LOOK_PERIOD: Duration = Duration::from_millis(100);

/// So much more memory is a reason to look for such a client at once: 16 MiB. Pages of 4 KiB.
const MEMORY_GROWTH_PAGES: u64 = 4_096;

/// Between two looks for such clients in any case: what a slow one adds meanwhile is no matter.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// How long the service may take to answer itself: as long as any other request.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// Requests that the doorkeeper receives at a time in place of busy workers: as many as clients
/// without manners can send meanwhile, or the queue grows. It has other work.
const RECEIVE_INSTEAD_MAX: usize = 4_096;

/// At the end, a worker looks for further requests for so long.
const DRAIN_PATIENCE: Duration = Duration::from_millis(100);
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// Threads for sessions that other programs' locks hold up, each for a second at a time.
const SLOW_WORKERS: usize = 2;

/// Connections for the start, the watch, the sweep, lists, and for slow workers, beside one for each
/// worker.
const SPARE_CONNECTIONS: usize = 4 + SLOW_WORKERS;

/// Why the service ended.
#[derive(Debug)]
pub enum Ending {
    /// SIGTERM or Ctrl-C: everything that was accepted is answered.
    Stopped,
    /// The database or its table cannot be used until somebody mends these.
    Unusable(Vec<Finding>),
    /// Something that a fresh process may be free of.
    Failed(String),
}

/// A service that is bound to its address.
pub struct Server {
    http: tiny_http::Server,
    api: Api,
    door: Door,
    workers: usize,
    message_retention: Duration,
}

impl Server {
    /// Binds the address; nothing is answered yet.
    pub fn bind(config: &Config) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| {
            format!(
                "cannot listen on {}: {error}; SESSION_LOCK_LISTEN must be an address of this machine that nobody \
                 uses, another session-lock for one",
                config.listen
            )
        };
        let (door, listener) =
            Door::open(&config.listen, config.socket_mode).map_err(|error| wrong(&error))?;
        if let Listen::Tcp(address) = &config.listen
            && !address.ip().is_loopback()
            && config.api_token.is_none()
        {
            warn!(
                "other machines may reach {address}, and any of them may take and force leases: set SESSION_LOCK_API_TOKEN"
            );
        }
        let http =
            tiny_http::Server::from_listener(listener, None).map_err(|error| wrong(&error))?;
        let connections = u32::try_from(config.workers + SPARE_CONNECTIONS).unwrap_or(u32::MAX);
        let store =
            Store::new(&config.database, &config.table, config.time_zone.as_deref(), connections);
        let message_retention = Duration::from_millis(config.message_retention_ms);
        let api = Api::new(store, config.max_hold_ms, config.api_token.clone());
        Ok(Self { http, api, door, workers: config.workers, message_retention })
    }

    /// The address, with the port that the system chose if none was named.
    pub fn address(&self) -> &Listen {
        self.door.at()
    }

    /// Serves until a signal or until it cannot go on.
    pub fn run(self) -> Ending {
        let (endings, ending) = channel();
        if let Err(error) = watch_signals(endings.clone()) {
            return Ending::Failed(format!("cannot watch for signals: {error}"));
        }
        let (health, health_requests) = channel();
        let (lists, list_requests) = channel();
        let shared = Arc::new(Shared {
            http: self.http,
            api: self.api,
            door: self.door,
            doorkeeper: Doorkeeper::default(),
            stopping: AtomicBool::new(false),
            aside: AtomicUsize::new(0),
            endings,
            clients: Mutex::default(),
            health,
            lists,
            next_up: Mutex::default(),
            receiving: Mutex::default(),
            rung: AtomicBool::new(false),
        });
        info!("listening on {}", shared.door.at());
        shared.start("sweeper", move |shared| {
            let store = shared.api.store();
            match background::open(store, &shared.stopping) {
                Ok(()) => background::sweep(store, &shared.stopping, self.message_retention),
                Err(findings) => shared.end(Ending::Unusable(findings)),
            }
        });
        shared.start("mender", |shared| {
            background::tend(shared.api.store(), &shared.stopping);
        });
        let helpers = [("health", health_requests), ("lister", list_requests)];
        let helpers = helpers.map(|(name, requests)| {
            shared.start(name, move |shared| {
                // Nothing more comes after a `None`.
                while let Ok(Some((request, arrived))) = requests.recv() {
                    shared.answer(request, arrived);
                }
            })
        });
        let doorkeeper = shared.start("doorkeeper", |shared| shared.keep_the_door());
        shared.doorkeeper.runs_in(doorkeeper.thread());
        shared.start("ticker", |shared| {
            background::tick(&shared.api, &shared.stopping, || shared.ring());
        });
        shared.start("watcher", |shared| {
            background::watch(&shared.api, &shared.stopping, || shared.ring());
        });
        if systemd::listens() {
            shared.start("reporter", |shared| shared.report());
        }
        let mut workers: Vec<_> = (1..=self.workers)
            .map(|number| shared.start(&format!("worker-{number}"), Shared::work))
            .collect();
        workers.extend((1..=SLOW_WORKERS).map(|number| {
            shared.start(&format!("slow-worker-{number}"), |shared| {
                while !shared.stopping.load(Ordering::Relaxed) {
                    shared.api.work_slowly(IDLE_PATIENCE);
                    shared.ring_if_ready();
                }
            })
        }));
        shared.stop(&ending, &workers, helpers)
    }
}

/// A request, and when it arrived.
type Arrived = (tiny_http::Request, Instant);

/// What the threads share.
struct Shared {
    http: tiny_http::Server,
    api: Api,
    door: Door,
    doorkeeper: Doorkeeper,
    stopping: AtomicBool,
    /// Threads that wait to write one answer.
    aside: AtomicUsize,
    endings: Sender<Ending>,
    clients: Mutex<Clients>,
    /// What was received already and has its turn now, and since when.
    next_up: Mutex<VecDeque<Arrived>>,
    /// To the thread that answers `/healthz` while all workers are busy.
    health: Sender<Option<Arrived>>,
    /// To the thread that answers with lists.
    lists: Sender<Option<Arrived>>,
    /// Held by whoever receives: requests are taken in the order they came in.
    receiving: Mutex<()>,
    /// Whether a worker was woken that has not looked yet.
    rung: AtomicBool,
}

/// What is known of the clients.
#[derive(Default)]
struct Clients {
    /// Those with a request that is not answered yet.
    unanswered: HashMap<SocketAddr, Pipeline>,
    /// Those that have sent a request since the doorkeeper looked.
    asked: HashSet<SocketAddr>,
}

/// What a client sent while a request of its was not answered yet.
#[derive(Default)]
struct Pipeline {
    kept: VecDeque<tiny_http::Request>,
    manners: Manners,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Manners {
    #[default]
    Good,
    /// It sent too much at once, or left its answers unread: what else it has sent is discarded.
    CutOff,
    /// And nothing of it is being answered any more: it is forgotten soon.
    Gone,
}

/// What becomes of a request.
enum Kept {
    /// It is to be handled now.
    Now(tiny_http::Request),
    /// After its client's last one.
    Later,
    /// Its client has sent too many besides.
    TooMany,
    /// Never: its client was cut off.
    Discarded,
}

/// Holds back what a client pipelines until its last request is answered. `tiny_http` writes the
/// answers of a connection in the order of its requests: an answer behind one that stands in line
/// would block whoever writes it.
struct InTurn {
    shared: Arc<Shared>,
    peer: Option<SocketAddr>,
}

impl Drop for InTurn {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        let mut clients = lock(&self.shared.clients);
        let Some(pipeline) = clients.unanswered.get_mut(&peer) else {
            return;
        };
        let next = pipeline.kept.pop_front();
        if pipeline.manners == Manners::CutOff {
            pipeline.manners = Manners::Gone;
        } else if next.is_none() {
            clients.unanswered.remove(&peer);
        }
        drop(clients);
        if let Some(next) = next {
            lock(&self.shared.next_up).push_back((next, Instant::now()));
            self.shared.ring();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that could panic happens under these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Starts a thread that ends the service if a bug ends it: what it was at is not known to be
    /// whole any more, and nobody else does its work.
    fn start(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> JoinHandle<()> {
        let (shared, whose) = (Arc::clone(self), name.to_owned());
        spawn(name, move || {
            if catch_unwind(AssertUnwindSafe(|| run(&shared))).is_err() {
                shared.end(Ending::Failed(format!(
                    "a bug ended the {whose}; a fresh start mends what it left"
                )));
            }
        })
    }

    /// Answers requests until the service stops: takes all that wait, so that they go to the
    /// database together, and never waits for company.
    fn work(self: &Arc<Self>) {
        while !self.stopping.load(Ordering::Relaxed) {
            let requests = self.receive(lock(&self.receiving), Vec::new(), |http| {
                if self.api.is_ready() {
                    // Another worker has left it, or not taken it yet, and rings for nobody.
                    http.try_recv()
                } else {
                    http.recv().map(Some)
                }
            });
            self.do_all(requests);
        }
        self.drain();
    }

    /// Ends the service if this error came from accepting: `tiny_http`'s accepting thread has ended
    /// with it, for good.
    fn end_if_deaf(&self, error: &io::Error) {
        // The others are ours: a worker was woken.
        if error.raw_os_error().is_some() {
            self.end(Ending::Failed(format!(
                "a connection could not be accepted ({error}); out of descriptors? (LimitNOFILE)"
            )));
        }
    }

    /// Does these, what is ready, and what comes meanwhile. What only reads is answered on the spot,
    /// one by one, so those who change something go first.
    fn do_all(self: &Arc<Self>, mut requests: Vec<Arrived>) {
        loop {
            let (changes, reads): (Vec<_>, Vec<_>) =
                requests.into_iter().partition(|(request, _)| *request.method() == Method::Post);
            for (request, arrived) in changes {
                self.handle(request, arrived);
            }
            // What is left is for the next worker. Nothing is, if that one sleeps in receiving and would
            // have to be woken, or if it is this one and has reads to answer before.
            let portion = if reads.is_empty() && self.receiving.try_lock().is_ok() {
                Portion::OneKind
            } else {
                Portion::Everything
            };
            let has_worked = self.api.work(portion);
            for (request, arrived) in reads {
                self.handle(request, arrived);
            }
            let mut next_up = lock(&self.next_up);
            if next_up.is_empty() && !has_worked {
                return;
            }
            let batch = next_up.len().min(BATCH_MAX);
            requests = next_up.drain(..batch).collect();
            drop(next_up);
            // What came meanwhile goes together with what was left for later.
            if requests.len() < BATCH_MAX
                && let Ok(receiving) = self.receiving.try_lock()
            {
                requests = self.receive(receiving, requests, tiny_http::Server::try_recv);
            }
        }
    }

    /// Answers what was accepted before the end.
    fn drain(self: &Arc<Self>) {
        let mut until = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < until {
            let requests = self
                .receive(lock(&self.receiving), Vec::new(), |http| http.recv_timeout(DRAIN_LOOK));
            if !requests.is_empty() {
                until = Instant::now() + DRAIN_PATIENCE;
            }
            self.do_all(requests);
        }
    }

    /// Receives for the workers while all of them are busy, in the database mostly: a client that
    /// sends without end is noticed, and `/healthz` answered.
    ///
    /// Not on a Unix socket: a connection's requests must be handled in their order, and there only
    /// that in which they come tells.
    fn receive_instead(&self) {
        if matches!(self.door.at(), Listen::Unix(_)) {
            return;
        }
        let Ok(receiving) = self.receiving.try_lock() else {
            return;
        };
        for _ in 0..RECEIVE_INSTEAD_MAX {
            let request = match self.http.try_recv() {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) => {
                    self.end_if_deaf(&error);
                    break;
                }
            };
            let peer = request.remote_addr().copied();
            match self.keep(peer, request) {
                // It ends with the process.
                Kept::Now(request) if request.url() == "/healthz" => {
                    drop(self.health.send(Some((request, Instant::now()))));
                }
                Kept::Now(request) => {
                    lock(&self.next_up).push_back((request, Instant::now()));
                }
                Kept::TooMany => self.cut_off(peer),
                Kept::Later | Kept::Discarded => {}
            }
        }
        drop(receiving);
        // Whoever rang may have been taken for the end of the queue.
        self.rung.store(false, Ordering::Relaxed);
        if !lock(&self.next_up).is_empty() || self.api.is_ready() {
            self.ring();
        }
    }

    /// These, the next request, and those that wait behind it, as many as a batch takes; but for those
    /// that are kept until their client's last one is answered. Two workers must not do this at once:
    /// a client's second request could get in before its first.
    fn receive(
        &self,
        receiving: MutexGuard<'_, ()>,
        mut requests: Vec<Arrived>,
        first: impl Fn(&tiny_http::Server) -> io::Result<Option<tiny_http::Request>>,
    ) -> Vec<Arrived> {
        let mut next = first(&self.http);
        let mut received = requests.len();
        let error = loop {
            let request = match next {
                Ok(Some(request)) => request,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            self.doorkeeper.note_traffic();
            let peer = request.remote_addr().copied();
            let mut is_read = false;
            match self.keep(peer, request) {
                Kept::Now(request) => {
                    is_read = *request.method() != Method::Post;
                    requests.push((request, Instant::now()));
                }
                Kept::TooMany => self.cut_off(peer),
                Kept::Later | Kept::Discarded => {}
            }
            received += 1;
            // What only reads is answered on the spot; others take what is behind it.
            if is_read || received >= BATCH_MAX {
                break None;
            }
            next = self.http.try_recv();
        };
        drop(receiving);
        // Whoever rang may have been taken for the end of the queue.
        self.rung.store(false, Ordering::Relaxed);
        if let Some(error) = error {
            self.end_if_deaf(&error);
        }
        requests
    }

    /// Keeps a request if its client's last one is not answered yet.
    fn keep(&self, peer: Option<SocketAddr>, request: tiny_http::Request) -> Kept {
        let Some(peer) = peer else {
            return Kept::Now(request);
        };
        let mut clients = lock(&self.clients);
        clients.asked.insert(peer);
        let Some(pipeline) = clients.unanswered.get_mut(&peer) else {
            clients.unanswered.insert(peer, Pipeline::default());
            return Kept::Now(request);
        };
        if pipeline.manners != Manners::Good {
            drop(clients);
            self.discard(request);
            return Kept::Discarded;
        }
        pipeline.kept.push_back(request);
        if pipeline.kept.len() > PIPELINED_MAX { Kept::TooMany } else { Kept::Later }
    }

    /// Cuts off a client with a request that is not answered yet, and discards what else it sent.
    fn cut_off(&self, peer: Option<SocketAddr>) {
        METRICS.cut_off.inc();
        shut_down(peer, Shutdown::Both);
        let mut clients = lock(&self.clients);
        let pipeline = peer.and_then(|peer| clients.unanswered.get_mut(&peer));
        let kept = pipeline.map(|pipeline| {
            pipeline.manners = Manners::CutOff;
            std::mem::take(&mut pipeline.kept)
        });
        drop(clients);
        for request in kept.into_iter().flatten() {
            self.discard(request);
        }
    }

    /// Drops a request of a client that was cut off. Without an answer, which would wait until the
    /// requests before it have theirs.
    fn discard(&self, request: tiny_http::Request) {
        if is_forged(&request) {
            return self.leave_behind(request);
        }
        let is_unread = request.body_length().is_some_and(|length| length > BODY_MAX_BYTES);
        if is_unread || expects_continue(&request) {
            // The drop waits for the rest of the body. A new connection may have the address of the
            // one that was cut off.
            shut_down(request.remote_addr().copied(), Shutdown::Both);
        }
        drop(request.into_writer());
    }

    /// Keeps what cannot be dropped safely; see [`Shared::refuse_unread`].
    fn leave_behind<T>(&self, what: T) {
        std::mem::forget(what);
        METRICS.left_behind.inc();
        let left_behind = METRICS.left_behind.get();
        warn!("refused a forged length; {left_behind} connections left behind");
        if left_behind >= LEFT_BEHIND_MAX {
            let text =
                "too many requests with forged lengths; a fresh start frees their connections";
            self.end(Ending::Failed(text.to_owned()));
        }
    }

    /// Answers a request, or has it answered: a list takes as long as hundreds of leases, so all of
    /// them together take one thread at most.
    fn handle(self: &Arc<Self>, request: tiny_http::Request, arrived: Instant) {
        if request.url().split('?').next() == Some("/v1/locks") {
            // It ends after all workers.
            let _ = self.lists.send(Some((request, arrived)));
        } else {
            self.answer(request, arrived);
        }
    }

    fn answer(self: &Arc<Self>, mut request: tiny_http::Request, arrived: Instant) {
        let peer = request.remote_addr().copied();
        let in_turn = InTurn { shared: Arc::clone(self), peer };
        let body = match read_body(&mut request) {
            Ok(body) => body,
            Err(Unread { refusal, rest }) => {
                return self.aside(peer, move |shared| {
                    shared.refuse_unread(request, &refusal.into(), rest);
                    drop(in_turn);
                });
            }
        };
        let header = |name: &'static str| {
            let mut headers = request.headers().iter();
            let found = headers.find(|header| header.field.equiv(name));
            found.map(|header| header.value.as_str())
        };
        let asked = Request {
            method: request.method().as_str(),
            target: request.url(),
            authorization: header("Authorization"),
            origin: header("Origin"),
            host: header("Host"),
            body: &body,
        };
        let asked = if self.stopping.load(Ordering::Relaxed) {
            Asked::Answered(api::stopping())
        } else {
            or_internal(|| self.api.read(&asked, arrived))
        };
        let shared = Arc::clone(self);
        let route = api::route_name(request.url());
        let reply = Box::new(move |response| {
            shared.aside(peer, move |shared| {
                shared.respond(request, &response);
                METRICS.answered(route, arrived.elapsed());
                drop(in_turn);
            });
        });
        self.api.take(asked, arrived, peer, reply);
    }

    /// Wakes a worker: there is something to do.
    fn ring(&self) {
        // Once is enough: whoever wakes does all there is to do.
        if !self.rung.swap(true, Ordering::Relaxed) {
            self.http.unblock();
        }
    }

    /// Wakes a worker, if there is something to do.
    fn ring_if_ready(&self) {
        if self.api.is_ready() {
            self.ring();
        }
    }

    /// Does what may block until a client lets it go on. On a Unix socket nothing tells whose a
    /// request is: it may stand behind another one of its connection, and its answer wait for that
    /// one's. So there it gets a thread of its own. With [`ASIDE_MAX`] of them nothing more is
    /// answered until some are done, or the process is started afresh.
    fn aside(self: &Arc<Self>, peer: Option<SocketAddr>, job: impl FnOnce(&Self) + Send + 'static) {
        if peer.is_some() {
            return job(self);
        }
        if self.aside.load(Ordering::Relaxed) >= ASIDE_MAX && !self.wait_for_aside(ASIDE_MAX) {
            let text = "too many answers wait for others of their connection on the Unix socket; a fresh start frees their threads";
            self.end(Ending::Failed(text.to_owned()));
        }
        let shared = Arc::clone(self);
        self.aside.fetch_add(1, Ordering::Relaxed);
        spawn("aside", move || {
            job(&shared);
            shared.aside.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Waits until fewer than so many answers wait; whether it is so.
    fn wait_for_aside(&self, count: usize) -> bool {
        let until = Instant::now() + ASIDE_PATIENCE;
        while self.aside.load(Ordering::Relaxed) >= count {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(TICK_PERIOD);
        }
        true
    }

    fn respond(&self, request: tiny_http::Request, response: &Response) {
        let peer = request.remote_addr().copied();
        // tiny_http panics on some `TE` headers; a worker must live on.
        let sent = catch_unwind(AssertUnwindSafe(|| request.respond(http_response(response))));
        if !matches!(sent, Ok(Ok(()))) {
            debug!("a client did not take its answer: {sent:?}");
            // What else it asked for would wait for it as long again, each time; and after a panic it
            // would take the next answer for this one's.
            self.cut_off(peer);
        }
    }

    /// Answers a request whose body was not read, and ends its connection.
    ///
    /// When such a request is dropped, `tiny_http` reads the rest of the body into a buffer of
    /// the declared size. The socket is closed for reading first, so that this ends at once with
    /// what has come so far. But a buffer of a forged size (10^12) aborts the whole process: such
    /// a request is never dropped. What it holds stays behind, a thread and two descriptors,
    /// counted, until [`LEFT_BEHIND_MAX`] of them make the process end and be started afresh.
    ///
    /// Where the length is malformed, `tiny_http` has taken what follows for the next request
    /// already, and it is answered as one. It comes from the same client, so nothing is gained by
    /// it; a proxy that many clients share must not pass such lengths on (nginx does not).
    fn refuse_unread(&self, mut request: tiny_http::Request, response: &Response, rest: Rest) {
        let peer = request.remote_addr().copied();
        shut_down(peer, Shutdown::Read);
        match rest {
            Rest::Short => {}
            Rest::Chunks => {
                // Those that came already must not be taken for the next request.
                let limit = u64::try_from(SKIP_MAX_BYTES).unwrap_or(u64::MAX);
                let skipped = io::copy(&mut request.as_reader().take(limit), &mut io::sink());
                debug!("skipped a body: {skipped:?}");
            }
            Rest::Forged => {
                let body = format!("{}\n", response.body);
                let mut stream = request.upgrade("none", http_response(response));
                let written = stream.write_all(body.as_bytes()).and_then(|()| stream.flush());
                debug!("refused a forged length: {written:?}");
                self.leave_behind(stream);
                return shut_down(peer, Shutdown::Write);
            }
        }
        self.respond(request, response);
    }

    fn end(&self, ending: Ending) {
        // The first one counts; nobody listens for a second.
        let _ = self.endings.send(ending);
    }

    /// Waits for a reason to end, and ends with every accepted request answered.
    fn stop(
        self: &Arc<Self>,
        ending: &Receiver<Ending>,
        workers: &[JoinHandle<()>],
        helpers: [JoinHandle<()>; 2],
    ) -> Ending {
        let ending = ending.recv().unwrap_or(Ending::Stopped);
        systemd::tell_stopping();
        self.door.close();
        // One that was being accepted meanwhile is there now.
        thread::sleep(TICK_PERIOD);
        self.door.close_connections();
        self.stopping.store(true, Ordering::Relaxed);
        self.api.close();
        // A worker may take another's wake-up, so this goes on until the last has ended.
        while workers.iter().any(|worker| !worker.is_finished()) {
            self.http.unblock();
            thread::sleep(TICK_PERIOD);
        }
        for (requests, helper) in [&self.health, &self.lists].into_iter().zip(helpers) {
            let _ = requests.send(None);
            let _ = helper.join();
        }
        // What has become ready since the last worker looked: behind a list, or in the slow lane.
        self.api.close();
        loop {
            let Some((request, arrived)) = lock(&self.next_up).pop_front() else {
                break;
            };
            self.answer(request, arrived);
        }
        self.wait_for_aside(1);
        ending
    }
}

/// A request whose body was not read.
struct Unread {
    refusal: Refusal,
    rest: Rest,
}

/// What may still come on the connection of a refused request.
#[derive(Clone, Copy)]
enum Rest {
    /// A body of a length that can be skipped, or nothing that counts as one.
    Short,
    /// Chunks, which say themselves where they end.
    Chunks,
    /// A body of a length that must not be believed.
    Forged,
}

/// Reads a request's body without ever waiting for the client: `tiny_http` has read a plain one
/// of up to [`BODY_MAX_BYTES`] before a worker sees the request, and any other is refused.
fn read_body(request: &mut tiny_http::Request) -> Result<Vec<u8>, Unread> {
    let values = |name: &'static str| {
        let headers = request.headers().iter().filter(move |header| header.field.equiv(name));
        headers.map(|header| header.value.as_str()).collect::<Vec<_>>()
    };
    let refuse = |refusal, rest| Err(Unread { refusal, rest });
    let invalid = |text: &str| Refusal::InvalidRequest(text.to_owned());
    let lengths = values("Content-Length");
    let length = match (&values("Transfer-Encoding")[..], &lengths[..]) {
        ([], []) if *request.method() == Method::Post => {
            return refuse(Refusal::LengthRequired, Rest::Short);
        }
        ([], []) => 0,
        ([], [digits])
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            digits.parse().unwrap_or(usize::MAX)
        }
        ([], _) => return refuse(invalid("Content-Length must be one number"), Rest::Short),
        // Reading the chunks would ask for them first.
        _ if expects_continue(request) => return refuse(Refusal::LengthRequired, Rest::Short),
        _ => return refuse(Refusal::LengthRequired, Rest::Chunks),
    };
    if is_forged(request) {
        return refuse(Refusal::TooLarge, Rest::Forged);
    }
    if length > BODY_MAX_BYTES {
        return refuse(Refusal::TooLarge, Rest::Short);
    }
    if expects_continue(request) {
        return refuse(
            invalid("Expect: send the body at once, without waiting for 100 Continue"),
            Rest::Short,
        );
    }
    if values("Connection").iter().any(|value| value.to_ascii_lowercase().contains("upgrade")) {
        return refuse(invalid("Connection: there is nothing to upgrade to"), Rest::Short);
    }
    let mut body = Vec::with_capacity(length);
    match request.as_reader().read_to_end(&mut body) {
        Ok(_) => Ok(body),
        Err(error) => refuse(invalid(&format!("the body could not be read: {error}")), Rest::Short),
    }
}

fn is_forged(request: &tiny_http::Request) -> bool {
    request.body_length().is_some_and(|length| length > SKIP_MAX_BYTES)
}

fn expects_continue(request: &tiny_http::Request) -> bool {
    request.headers().iter().any(|header| header.field.equiv("Expect"))
}

/// One request's bug must not take a worker away from all others.
fn or_internal(read: impl FnOnce() -> Asked) -> Asked {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Asked::Answered(Refusal::Internal.into()))
}

fn http_response(response: &Response) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let mut http = tiny_http::Response::from_string(format!("{}\n", response.body.trim_end()))
        .with_status_code(response.status)
        .with_header(header("Content-Type", response.content_type))
        .with_header(header("Server", "session-lock"));
    if let Some(seconds) = response.retry_after_s {
        http.add_header(header("Retry-After", &seconds.to_string()));
    }
    if let Some(methods) = response.allow {
        http.add_header(header("Allow", methods));
    }
    if response.content_type == HTML {
        // The page is all there is to it: nothing else is loaded, and nobody frames it.
        http.add_header(header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
        ));
        http.add_header(header("X-Content-Type-Options", "nosniff"));
    }
    if response.status == 401 {
        http.add_header(header("WWW-Authenticate", "Bearer"));
    }
    http
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("our own headers are ASCII")
}

/// Frees connections that `tiny_http` has accepted and forgotten, and cuts off those that send a
/// head without end, which it would keep in memory.
///
/// In a burst it hands a connection to a pool thread that has been handed one already; that
/// connection then waits, with its request unread, until the pool gets another thread. Every new
/// connection, opened and closed at once even, brings one: a nudge.
#[derive(Default)]
struct Doorkeeper {
    traffic: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Doorkeeper {
    fn runs_in(&self, thread: &Thread) {
        self.thread.get_or_init(|| thread.clone());
    }

    fn note_traffic(&self) {
        if !self.traffic.swap(true, Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

impl Shared {
    fn keep_the_door(&self) {
        let mut nudges_left = 0;
        let mut burst = 1;
        let mut seen = Seen::default();
        let (mut nudged, mut looked) = (None, Instant::now());
        let ProcessSize { mut threads, mut pages } = ProcessSize::now();
        while !self.stopping.load(Ordering::Relaxed) {
            if self.doorkeeper.traffic.swap(false, Ordering::Relaxed) {
                nudges_left = NUDGES_AFTER_TRAFFIC;
            }
            if nudges_left > 0 || nudged.is_none_or(|at: Instant| at.elapsed() >= NUDGE_IDLE_PERIOD)
            {
                nudged = Some(Instant::now());
                if (0..burst).any(|_| self.nudge_fails()) {
                    // tiny_http's accepting thread dies silently when it cannot start another, or
                    // when there is one descriptor too few.
                    let text = "connections cannot be accepted any more; out of threads (TasksMax) or descriptors (LimitNOFILE)?";
                    return self.end(Ending::Failed(text.to_owned()));
                }
            }
            let now = ProcessSize::now();
            // Each forgotten connection that says nothing keeps the thread that a nudge brought: there
            // may be more of them before one that does.
            if now.threads > threads {
                nudges_left = NUDGES_AFTER_TRAFFIC;
                burst = (burst * 2).min(NUDGE_BURST_MAX);
            } else {
                burst = 1;
            }
            threads = now.threads;
            self.receive_instead();
            let is_crowded = self.aside.load(Ordering::Relaxed) >= ASIDE_CROWD;
            if is_crowded
                || now.pages > pages + MEMORY_GROWTH_PAGES
                || looked.elapsed() >= LOOK_PERIOD
            {
                (looked, pages) = (Instant::now(), now.pages);
                let patience = if is_crowded { CROWD_PATIENCE } else { DEAF_PATIENCE };
                let mut clients = lock(&self.clients);
                let asked = std::mem::take(&mut clients.asked);
                let is_gone = |pipeline: &mut Pipeline| pipeline.manners == Manners::Gone;
                let gone: Vec<_> =
                    clients.unanswered.extract_if(|_, pipeline| is_gone(pipeline)).collect();
                drop(clients);
                for (peer, _) in gone {
                    // A new connection from there has lost its request, and is to notice.
                    shut_down(Some(peer), Shutdown::Both);
                }
                match self.door.cut_off(&mut seen, &asked, patience) {
                    0 => {}
                    number => {
                        METRICS.cut_off.inc_by(number);
                        warn!(
                            "cut off {number} clients that sent a head without end, or did not read their answers"
                        );
                    }
                }
            }
            if nudges_left > 0 {
                nudges_left -= 1;
                thread::sleep(NUDGE_PERIOD);
            } else {
                thread::park_timeout(MEMORY_LOOK_PERIOD);
            }
        }
    }

    /// Whether a nudge shows that nobody accepts connections.
    fn nudge_fails(&self) -> bool {
        // Any other failure passes: the machine is busy.
        self.door.connect(NUDGE_PERIOD).is_err_and(|error| {
            error.kind() == io::ErrorKind::ConnectionRefused
                || error.raw_os_error() == Some(libc::EMFILE)
        })
    }

    /// Tells systemd how the service is, as a client sees it.
    fn report(&self) {
        let answers = || match self.ask_healthz() {
            Ok(answer) => answer.starts_with("HTTP/1.1 200 "),
            Err(error) => {
                debug!("the service did not answer itself: {error}");
                false
            }
        };
        systemd::report(answers, |pause| {
            thread::sleep(pause);
            if self.stopping.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }

    fn ask_healthz(&self) -> io::Result<String> {
        let mut stream = self.door.connect(PROBE_PATIENCE)?;
        stream.write_all(
            b"GET /healthz HTTP/1.1\r\nHost: session-lock\r\nConnection: close\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// What the system says of the process.
struct ProcessSize {
    threads: u64,
    pages: u64,
}

impl ProcessSize {
    /// Zeros where the system does not tell.
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // What follows the name, which may have blanks in it: proc(5).
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { threads: number(18), pages: number(22) }
    }
}

fn watch_signals(endings: Sender<Ending>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    spawn("signals", move || {
        if signals.forever().next().is_some() {
            info!("stopping");
            let _ = endings.send(Ending::Stopped);
        }
    });
    Ok(())
}

/// Starts a thread whose name shows in `top -H` and in a panic's message.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(run).expect("the system has room for the few threads of the start")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_request_is_a_500() {
        let Asked::Answered(response) = or_internal(|| panic!("on purpose")) else {
            panic!("it is answered");
        };
        assert_eq!(response.status, 500);
        assert!(response.body.contains("\"internal\""), "{}", response.body);
    }
}
