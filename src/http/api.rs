//! The HTTP interface: a request's bytes in, a status and JSON out, over the store. Knows no listener
//! and no SQL; what each answer means is in the README.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use percent_encoding::percent_decode_str;
use prometheus::IntCounterVec;
use serde_json::{Value, json};

use crate::config::ApiToken;
use crate::http::fields::{Fields, Invalid};
use crate::lease::{
    Acquire, Acquired, Commit, Committed, FencingToken, Force, Forced, Found, HOLD_MS, Holder,
    Holding, How, Id, Lease, MessageId, OwnerToken, Record, Release, Released, Renew, Renewed,
    Session, Stale, TTL_MAX_MS, TokenOrigin,
};
use crate::logging;
use crate::metrics::METRICS;
use crate::queue::{Claim, Effect, Lines, Name, Portion, Ready, Refused, RowLock, Turn, Waiter};
use crate::store::{Answer, FirstPacket, Operation, Store, StoreError};

/// The description of this interface, for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// The operator's page.
const PAGE: &str = include_str!("page.html");

/// Longest body of a request. Ids, tokens and numbers fit several times over, and the listener
/// reads a body of this size in one go.
pub const BODY_MAX_BYTES: usize = 1024;

/// Operations that go to the database in one transaction. More than this gain little, and make all
/// of them wait for one that fails.
pub const BATCH_MAX: usize = 64;

/// Longest wait in line. Providers of webhooks give up, and send again, after 30 s or so.
pub const WAIT_MAX_MS: u64 = 25_000;

/// What has waited for so long is refused without a try: that may take 7 s more, and everything ends
/// within 10 s, however slow the database and however many ask at once.
const QUEUE_PATIENCE: Duration = Duration::from_secs(2);

/// Leases on a page, if the caller does not say: as many as a person reads.
const LIST_DEFAULT: u64 = 100;

/// Most leases on a page: some milliseconds of the database's time.
pub const LIST_MAX: u64 = 1_000;

/// `Retry-After` of a held session never says more, however long the lease: its holder may
/// release it at any time.
const RETRY_AFTER_MAX_S: u64 = 30;

/// `Retry-After` when the database is not available: most failures are over in a second or two.
const RETRY_AFTER_UNAVAILABLE_S: u64 = 1;

/// A row dated further ahead than its kind explains is worth a warning; clocks may differ by this.
const AHEAD_TOLERANCE: Duration = Duration::from_secs(5);

/// A request, as far as it matters here.
pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub authorization: Option<&'a str>,
    /// The `Origin` header: a browser's word for whose page it runs.
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    /// The body, at most `BODY_MAX_BYTES`.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Whether a browser sends it for a page that is not ours: any page that an operator looks at
    /// could otherwise force leases on the operator's own machine.
    fn is_from_elsewhere(&self) -> bool {
        let own = |origin: &str| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some() && authority == self.host
        };
        self.origin.is_some_and(|origin| !own(origin))
    }
}

const JSON: &str = "application/json";

/// What the operator's page is.
pub const HTML: &str = "text/html; charset=utf-8";

/// Prometheus' text format.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A response: JSON mostly, with the few headers that depend on the answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
    /// What that is.
    pub content_type: &'static str,
    pub retry_after_s: Option<u64>,
    pub allow: Option<&'static str>,
}

impl Response {
    fn new(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string(),
            content_type: JSON,
            retry_after_s: None,
            allow: None,
        }
    }

    fn text(body: impl Into<String>, content_type: &'static str) -> Self {
        Self { body: body.into(), content_type, ..Self::new(200, &Value::Null) }
    }

    /// A refusal because the message is answered, with what its worker left, byte for byte.
    fn duplicate(body: &Value, record: &Record) -> Self {
        let mut response = Self::new(409, body);
        let result = record.result.as_deref().unwrap_or("null");
        let fields = response.body.trim_end_matches('}');
        response.body = format!("{fields},\"result\":{result}}}");
        response
    }
}

/// A request that gets no answer about leases.
#[derive(Debug)]
pub enum Refusal {
    /// Malformed: 400, and what is wrong.
    InvalidRequest(String),
    /// Without the API token: 401.
    Unauthorized,
    /// No such path: 404.
    NotFound,
    /// Not with this method: 405, and with which.
    MethodNotAllowed(&'static str),
    /// Without a length: 411.
    LengthRequired,
    /// Longer than [`BODY_MAX_BYTES`]: 413.
    TooLarge,
    /// A bug of ours: 500.
    Internal,
    /// The database is not there, or not in time: 503. Whoever was refused a lease whose fate is
    /// unknown is given its owner token, to ask again with.
    Unavailable(String, Option<OwnerToken>),
}

impl From<Invalid> for Refusal {
    fn from(Invalid(wrong): Invalid) -> Self {
        Self::InvalidRequest(wrong)
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let (status, code, message) = match &refusal {
            Refusal::InvalidRequest(message) => (400, "invalid_request", message.as_str()),
            Refusal::Unauthorized => (
                401,
                "unauthorized",
                "send the header Authorization: Bearer TOKEN, with the server's API token",
            ),
            Refusal::NotFound => {
                (404, "not_found", "there is no such path; the README has a table of them")
            }
            Refusal::MethodNotAllowed("POST") => {
                (405, "method_not_allowed", "this path takes POST")
            }
            Refusal::MethodNotAllowed(_) => (405, "method_not_allowed", "this path takes GET"),
            Refusal::LengthRequired => {
                (411, "length_required", "send a body with a Content-Length, not chunked")
            }
            Refusal::TooLarge => (413, "too_large", "the body may have 1024 bytes at most"),
            Refusal::Internal => {
                (500, "internal", "a bug in session-lock; its log has a line about it")
            }
            Refusal::Unavailable(message, _) => (503, "unavailable", message.as_str()),
        };
        let mut body = json!({"error": {"code": code, "message": message}});
        if let Refusal::Unavailable(_, Some(token)) = &refusal {
            body["owner_token"] = json!(token.secret());
        }
        let mut response = Self::new(status, &body);
        match refusal {
            Refusal::MethodNotAllowed(allow) => response.allow = Some(allow),
            Refusal::Unavailable(..) => response.retry_after_s = Some(RETRY_AFTER_UNAVAILABLE_S),
            _ => {}
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Internal => Self::Internal,
            _ => Self::Unavailable(error.to_string(), None),
        }
    }
}

/// How an answer gets to whoever asked.
pub type Reply = Box<dyn FnOnce(Response) + Send>;

/// The interface to a store.
pub struct Api {
    store: Store,
    lines: Lines<Ticket>,
    closed: AtomicBool,
    max_hold_ms: u64,
    token: Option<ApiToken>,
}

/// What is to be done for a request, and how to answer it.
struct Ticket {
    operation: Operation,
    peer: Option<SocketAddr>,
    reply: Reply,
}

/// What a request asks for.
pub enum Asked {
    /// To acquire.
    Acquire {
        acquire: Acquire,
        wait: Duration,
    },
    /// Something else that is done to one session.
    Direct(Operation),
    Answered(Response),
}

enum Route {
    Acquire,
    Renew,
    Commit,
    Release,
    Locks,
    Lock(Session),
    Healthz,
    Readyz,
    Metrics,
    OpenApi,
    Page,
}

/// A request's route, for the metrics.
pub fn route_name(target: &str) -> &'static str {
    let path = target.split('?').next().unwrap_or_default();
    match Route::find(path) {
        Ok(Route::Acquire) => "acquire",
        Ok(Route::Renew) => "renew",
        Ok(Route::Commit) => "commit",
        Ok(Route::Release) => "release",
        Ok(Route::Locks) => "locks",
        Ok(Route::Lock(_)) => "lock",
        Ok(Route::Healthz) => "healthz",
        Ok(Route::Readyz) => "readyz",
        Ok(Route::Metrics) => "metrics",
        Ok(Route::OpenApi) => "openapi",
        Ok(Route::Page) => "page",
        Err(_) => "unknown",
    }
}

impl Route {
    fn find(path: &str) -> Result<Self, Refusal> {
        match path {
            "/v1/acquire" => Ok(Self::Acquire),
            "/v1/renew" => Ok(Self::Renew),
            "/v1/commit" => Ok(Self::Commit),
            "/v1/release" => Ok(Self::Release),
            "/v1/locks" => Ok(Self::Locks),
            "/healthz" => Ok(Self::Healthz),
            "/readyz" => Ok(Self::Readyz),
            "/metrics" => Ok(Self::Metrics),
            "/openapi.json" => Ok(Self::OpenApi),
            "/" => Ok(Self::Page),
            _ => {
                let ids = path.strip_prefix("/v1/locks/").and_then(|ids| ids.split_once('/'));
                let (device, prospect) =
                    ids.filter(|(_, id)| !id.contains('/')).ok_or(Refusal::NotFound)?;
                Ok(Self::Lock(Session {
                    id_device: decoded_id("id_device", device)?,
                    id_prospect: decoded_id("id_prospect", prospect)?,
                }))
            }
        }
    }

    /// Where its outcomes are counted.
    fn counters(&self) -> Option<&'static IntCounterVec> {
        match self {
            Self::Acquire => Some(&METRICS.acquires),
            Self::Renew => Some(&METRICS.renews),
            Self::Commit => Some(&METRICS.commits),
            Self::Release => Some(&METRICS.releases),
            _ => None,
        }
    }

    fn asks_the_database(&self) -> bool {
        !matches!(self, Self::Healthz | Self::Metrics | Self::OpenApi | Self::Page)
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Acquire | Self::Renew | Self::Commit | Self::Release => "POST",
            Self::Locks
            | Self::Lock(_)
            | Self::Healthz
            | Self::Readyz
            | Self::Metrics
            | Self::OpenApi
            | Self::Page => "GET, HEAD",
        }
    }
}

fn decoded_id(name: &str, encoded: &str) -> Result<Id, Invalid> {
    Id::as_stored(&decoded(name, encoded)?).map_err(|wrong| Invalid::field(name, wrong))
}

fn decoded(name: &str, encoded: &str) -> Result<String, Invalid> {
    match percent_decode_str(encoded).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Invalid::field(name, "is not UTF-8 once percent-decoded")),
    }
}

impl Api {
    /// The interface to this store.
    pub fn new(store: Store, max_hold_ms: u64, token: Option<ApiToken>) -> Self {
        Self { store, lines: Lines::default(), closed: AtomicBool::new(false), max_hold_ms, token }
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes what a request of `peer` asks for. What is done to a session's lease takes its turn in
    /// [`Api::work`], everything else is answered at once.
    pub fn take(&self, asked: Asked, arrived: Instant, peer: Option<SocketAddr>, reply: Reply) {
        match asked {
            Asked::Answered(response) => reply(response),
            _ if self.closed.load(Ordering::Relaxed) => reply(stopping()),
            Asked::Direct(operation) => {
                let name = self.store.name(operation.session());
                let ticket = Ticket { operation, peer, reply };
                self.lines.submit(&name, ticket, arrived);
            }
            Asked::Acquire { acquire, wait } => {
                let origin = acquire.origin;
                let name = self.store.name(&acquire.session);
                let claim = Claim {
                    owner_token: acquire.owner_token.clone(),
                    message_id: acquire.message_id.clone(),
                };
                let ticket = Ticket {
                    operation: Operation::Acquire(acquire, FirstPacket::Write),
                    peer,
                    reply,
                };
                let waiter = Waiter { claim, arrived, until: arrived + wait, ticket };
                self.lines.join(&name, waiter, origin);
            }
        }
    }

    /// Does what is ready to be done now, so much of it, together in the database; whether there was
    /// anything.
    pub fn work(&self, portion: Portion) -> bool {
        let ready = self.lines.next(portion, BATCH_MAX);
        if ready.is_empty() {
            return false;
        }
        let began = Instant::now();
        let in_time = |ready: &Ready<_>| ready.since.elapsed() < QUEUE_PATIENCE;
        let (turns, late): (Vec<_>, Vec<_>) = ready.into_iter().partition(in_time);
        for Ready { name, turn, .. } in late {
            self.lines.changed_nothing(&name);
            not_served(turn.into_ticket(), &too_slow());
        }
        if turns.is_empty() {
            return true;
        }
        let operations: Vec<_> = turns.iter().map(operation).collect();
        #[allow(clippy::cast_precision_loss)] // a few dozen at most
        METRICS.batch_size.observe(operations.len() as f64);
        let answers = self.run(&operations);
        let _lines = logging::Together::begin();
        for (ready, answer) in turns.into_iter().zip(answers) {
            let Ready { name, turn, since, .. } = ready;
            let turn = match answer {
                Err(StoreError::Locked) => self.lines.locked(&name, turn, since),
                _ => Some(turn),
            };
            if let Some(turn) = turn {
                self.finish(&name, turn, began, answer);
            }
        }
        true
    }

    /// Does one thing that another program's lock may hold up, if there is one within `patience`.
    /// What such a lock has held up for too long already is refused without another try.
    pub fn work_slowly(&self, patience: Duration) {
        let Some(ready) = self.lines.next_slow(patience) else {
            return;
        };
        let began = Instant::now();
        let answer = if ready.since.elapsed() >= QUEUE_PATIENCE {
            Err(StoreError::Locked)
        } else {
            self.run(&[operation(&ready)]).pop().unwrap_or(Err(StoreError::Internal))
        };
        let lock = match answer {
            Err(StoreError::Locked) => RowLock::Held,
            _ => RowLock::Gone,
        };
        self.lines.leave_slow_lane(&ready.name, lock);
        self.finish(&ready.name, ready.turn, began, answer);
    }

    /// Answers a turn, and gives the line what follows from it.
    fn finish(
        &self,
        name: &Name,
        turn: Turn<Ticket>,
        began: Instant,
        answer: Result<Answer, StoreError>,
    ) {
        match (turn, answer) {
            (Turn::Direct(ticket), Ok(answer)) => {
                let held = self.lines.done(name, effect(&answer));
                if let (Answer::Release(Released::Released), Some(held)) = (&answer, held) {
                    METRICS.hold.observe(held.as_secs_f64());
                }
                let response = direct(&ticket, &answer);
                (ticket.reply)(response);
            }
            (Turn::Recall(waiter), Ok(answer)) => match found(&waiter.ticket, answer) {
                Some(response) => {
                    self.lines.done(name, Effect::None);
                    (waiter.ticket.reply)(response);
                }
                None => self.lines.rejoin(name, waiter),
            },
            (Turn::Refuse(refused), Ok(answer)) => {
                self.lines.changed_nothing(name);
                match found(&refused.waiter.ticket, answer) {
                    Some(response) => (refused.waiter.ticket.reply)(response),
                    None => reply_held(refused),
                }
            }
            (Turn::Acquire(waiter), Ok(answer)) => self.acquired(name, waiter, began, answer),
            (turn, Err(error)) => self.failed(name, turn, began, &error),
        }
    }

    /// Whether there is anything to do for a worker.
    pub fn is_ready(&self) -> bool {
        self.lines.is_ready()
    }

    /// Answers those whose wait is over; whether there is anything to do for a worker now.
    pub fn tick(&self) -> bool {
        self.refuse(self.lines.tick(Instant::now()));
        self.lines.is_ready()
    }

    /// Looks whether rows that are waited for changed; whether there is anything to do for a
    /// worker now.
    pub fn watch(&self) -> bool {
        // Without the database nobody's turn can come; waits still end in time.
        if let Ok(changed) = self.store.changed(&self.lines.watched()) {
            self.lines.changed(&changed);
        }
        self.lines.is_ready()
    }

    /// Blocks until somebody waits, at most so long; whether anybody does.
    pub fn wait_for_waiters(&self, patience: Duration) -> bool {
        self.lines.wait_for_waiters(patience)
    }

    /// Ends the service: what is begun is finished, and everything else refused, to be asked of
    /// the next. Once more at the very end, for what was being taken meanwhile.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for ticket in self.lines.close() {
            (ticket.reply)(stopping());
        }
    }

    /// Reads a request that arrived then.
    pub fn read(&self, request: &Request, arrived: Instant) -> Asked {
        self.try_read(request, arrived).unwrap_or_else(|refusal| Asked::Answered(refusal.into()))
    }

    fn try_read(&self, request: &Request, arrived: Instant) -> Result<Asked, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        if !matches!(path, "/" | "/healthz" | "/readyz") {
            self.authorize(request)?;
        }
        let route = Route::find(path)?;
        if !route.methods().split(", ").any(|method| method == request.method) {
            return Err(Refusal::MethodNotAllowed(route.methods()));
        }
        if request.method == "POST" && request.is_from_elsewhere() {
            let text = "Origin: a page of another site may not ask this";
            return Err(Refusal::InvalidRequest(text.to_owned()));
        }
        if route.asks_the_database() && arrived.elapsed() >= QUEUE_PATIENCE {
            if let Some(counters) = route.counters() {
                counters.with_label_values(&["failed"]).inc();
            }
            return Err(too_slow().into());
        }
        match route {
            Route::Acquire => Ok(self.read_acquire(Fields::read(request.body)?)?),
            Route::Renew => Ok(self.read_renew(Fields::read(request.body)?)?),
            Route::Commit => Ok(self.read_commit(Fields::read(request.body)?)?),
            Route::Release => Ok(self.read_release(Fields::read(request.body)?)?),
            Route::Locks => self.list(query).map(Asked::Answered),
            Route::Lock(session) => self.look(&session).map(Asked::Answered),
            Route::Healthz => Ok(Asked::Answered(Response::new(200, &json!({"status": "ok"})))),
            Route::Metrics => {
                let waiting = i64::try_from(self.lines.waiting()).unwrap_or(i64::MAX);
                METRICS.waiters.set(waiting);
                Ok(Asked::Answered(Response::text(METRICS.text(), METRICS_TEXT)))
            }
            Route::OpenApi => Ok(Asked::Answered(Response::text(OPENAPI, JSON))),
            Route::Page => Ok(Asked::Answered(Response::text(PAGE, HTML))),
            Route::Readyz => {
                self.store.ready()?;
                Ok(Asked::Answered(Response::new(200, &json!({"status": "ready"}))))
            }
        }
    }

    fn read_acquire(&self, mut fields: Fields) -> Result<Asked, Invalid> {
        let session = fields.session(Id::new)?;
        let ttl = fields.ttl(self.max_hold_ms)?;
        let wait_ms = fields.integer("wait_ms")?.unwrap_or(0);
        if wait_ms > WAIT_MAX_MS {
            return Err(Invalid::field("wait_ms", format!("must be 0-{WAIT_MAX_MS} milliseconds")));
        }
        let (owner_token, origin) = match fields.owner_token()? {
            Some(token) => (token, TokenOrigin::Callers),
            None => (OwnerToken::draw(), TokenOrigin::Ours),
        };
        let message_id = fields.message_id()?;
        fields.finish()?;
        self.allow_message(message_id.as_ref())?;
        let wait = Duration::from_millis(wait_ms);
        Ok(Asked::Acquire {
            acquire: Acquire { session, owner_token, origin, ttl, message_id },
            wait,
        })
    }

    /// Refuses a message if there is nowhere to record it.
    fn allow_message(&self, message_id: Option<&MessageId>) -> Result<(), Invalid> {
        match message_id.map(|_| self.store.keeps_messages()) {
            Some(Err(why)) => Err(Invalid::field("message_id", format!("is refused: {why}"))),
            _ => Ok(()),
        }
    }

    fn read_renew(&self, mut fields: Fields) -> Result<Asked, Invalid> {
        let session = fields.session(Id::new)?;
        let ttl = fields.ttl(self.max_hold_ms)?;
        let owner_token =
            fields.owner_token()?.ok_or_else(|| Invalid::field("owner_token", "is missing"))?;
        fields.finish()?;
        let max_hold_ms = self.max_hold_ms;
        Ok(Asked::Direct(Operation::Renew(Renew { session, owner_token, ttl, max_hold_ms })))
    }

    fn read_commit(&self, mut fields: Fields) -> Result<Asked, Invalid> {
        let session = fields.session(Id::new)?;
        let owner_token =
            fields.owner_token()?.ok_or_else(|| Invalid::field("owner_token", "is missing"))?;
        let message =
            fields.message()?.ok_or_else(|| Invalid::field("message_id", "is missing"))?;
        fields.finish()?;
        self.allow_message(Some(&message.id))?;
        Ok(Asked::Direct(Operation::Commit(Commit { session, owner_token, message })))
    }

    fn read_release(&self, mut fields: Fields) -> Result<Asked, Invalid> {
        if fields.flag("force")? {
            let session = fields.session(Id::as_stored)?;
            let fencing_token = fields.integer("fencing_token")?.map(FencingToken);
            if fields.owner_token()?.is_some() {
                return Err(Invalid::field("owner_token", "and force: send one of them"));
            }
            fields.finish()?;
            return Ok(Asked::Direct(Operation::Force(Force { session, fencing_token })));
        }
        let session = fields.session(Id::new)?;
        let missing =
            || Invalid::field("owner_token", "is missing (or \"force\": true, for an operator)");
        let owner_token = fields.owner_token()?.ok_or_else(missing)?;
        let message = fields.message()?;
        fields.finish()?;
        self.allow_message(message.as_ref().map(|message| &message.id))?;
        Ok(Asked::Direct(Operation::Release(Release { session, owner_token, message })))
    }

    fn run(&self, operations: &[Operation]) -> Vec<Result<Answer, StoreError>> {
        // One request's bug must take neither a worker nor a session away from all others.
        let ran = catch_unwind(AssertUnwindSafe(|| self.store.run(operations)));
        let internal = |_| operations.iter().map(|_| Err(StoreError::Internal)).collect();
        ran.unwrap_or_else(internal)
    }

    /// Answers those whose wait is over. Who would answer a message is not told that the session
    /// is held before it is clear that the message is unanswered: that is another look.
    fn refuse(&self, refused: Vec<Refused<Ticket>>) {
        for refused in refused {
            if refused.waiter.claim.message_id.is_none() {
                reply_held(refused);
            } else {
                let name = self.store.name(refused.waiter.ticket.operation.session());
                if let Some(refused) = self.lines.refuse_in_turn(&name, refused) {
                    (refused.waiter.ticket.reply)(stopping());
                }
            }
        }
    }

    /// What came of the first in line.
    fn acquired(&self, name: &Name, waiter: Waiter<Ticket>, began: Instant, answer: Answer) {
        match answer {
            Answer::Acquire(Acquired::Granted(lease)) => {
                let session = waiter.ticket.operation.session().clone();
                METRICS.wait.observe(waiter.arrived.elapsed().as_secs_f64());
                let same = self.lines.take_same(name, &waiter.claim);
                let refused = self.lines.held(name, None, began, lease.holding());
                (waiter.ticket.reply)(granted(&session, &lease));
                for waiter in same {
                    let again = Lease { how: How::Again, ..lease.clone() };
                    (waiter.ticket.reply)(granted(&session, &again));
                }
                self.refuse(refused);
            }
            Answer::Acquire(Acquired::Held(holding)) => {
                self.refuse(self.lines.held(name, Some(waiter), began, holding));
            }
            Answer::Acquire(Acquired::Duplicate(record)) => {
                self.lines.done(name, Effect::None);
                let response = duplicate(&waiter.ticket.operation, &record);
                (waiter.ticket.reply)(response);
            }
            _ => {
                self.lines.done(name, Effect::None);
                (waiter.ticket.reply)(Refusal::Internal.into());
            }
        }
    }

    /// Ends a turn that failed, for all who would only fail as slowly one after the other.
    fn failed(&self, name: &Name, turn: Turn<Ticket>, began: Instant, error: &StoreError) {
        for ticket in self.lines.failed(name, began) {
            not_served(ticket, error);
        }
        let owner_token = match (&turn, error) {
            (Turn::Acquire(waiter), StoreError::Unsettled(_)) => {
                Some(waiter.claim.owner_token.clone())
            }
            _ => None,
        };
        let refusal = match error {
            StoreError::Internal => Refusal::Internal,
            _ => Refusal::Unavailable(error.to_string(), owner_token),
        };
        let ticket = turn.into_ticket();
        note_failure(&ticket.operation, error);
        (ticket.reply)(refusal.into());
    }

    fn authorize(&self, request: &Request) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let presented = request.authorization.and_then(|header| header.split_once(' '));
        match presented {
            Some((scheme, presented))
                if scheme.eq_ignore_ascii_case("bearer") && token.accepts(presented.trim()) =>
            {
                Ok(())
            }
            _ => Err(Refusal::Unauthorized),
        }
    }

    fn look(&self, session: &Session) -> Result<Response, Refusal> {
        let waiters = self.lines.waiters(&self.store.name(session));
        let answer = self.run(&[Operation::Look(session.clone())]).pop();
        let Some(Answer::Look(holding)) = answer.transpose()? else {
            return Err(Refusal::Internal);
        };
        let Some(holding) = holding else {
            return Ok(Response::new(200, &json!({"held": false})));
        };
        let mut body = json!({"held": true});
        describe(&mut body, session, &holding, waiters);
        Ok(Response::new(200, &body))
    }

    fn list(&self, query: &str) -> Result<Response, Refusal> {
        let (mut device, mut limit, mut after) = (None, LIST_DEFAULT, 0);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(name, value)?;
            match name {
                "id_device" => {
                    device =
                        Some(Id::as_stored(&value).map_err(|wrong| Invalid::field(name, wrong))?);
                }
                "limit" => {
                    let number = value.parse().ok().filter(|limit| (1..=LIST_MAX).contains(limit));
                    limit = number
                        .ok_or_else(|| Invalid::field(name, format!("must be 1-{LIST_MAX}")))?;
                }
                "after" => {
                    let key = value.parse();
                    after = key.map_err(|_| {
                        Invalid::field(name, "must be what \"next\" of the page before said")
                    })?;
                }
                _ => return Err(Invalid::field(name, "is not a parameter of this request").into()),
            }
        }
        let page = self.store.list(device.as_ref(), after, limit)?;
        let locks = page.holdings.iter().map(|(session, holding)| {
            let mut lock = json!({});
            describe(&mut lock, session, holding, self.lines.waiters(&self.store.name(session)));
            lock
        });
        let mut body = json!({"locks": locks.collect::<Vec<_>>()});
        if let Some(next) = page.next {
            body["next"] = json!(next.to_string());
        }
        Ok(Response::new(200, &body))
    }
}

/// Why somebody is refused who has waited for too long before a try.
fn too_slow() -> StoreError {
    StoreError::Unavailable("it answers too slowly".to_owned())
}

/// The answer to what comes when the service stops.
pub fn stopping() -> Response {
    let message = "the server is stopping; repeat the same request";
    Refusal::Unavailable(message.to_owned(), None).into()
}

/// What is asked of the database in this turn.
fn operation(ready: &Ready<Ticket>) -> Operation {
    let (ticket, only_looks) = match &ready.turn {
        Turn::Direct(ticket) => (ticket, false),
        Turn::Acquire(waiter) => (&waiter.ticket, false),
        Turn::Recall(waiter) => (&waiter.ticket, true),
        Turn::Refuse(refused) => (&refused.waiter.ticket, true),
    };
    match ticket.operation.clone() {
        Operation::Acquire(acquire, _) if only_looks => Operation::Find(acquire),
        Operation::Acquire(acquire, _) => Operation::Acquire(acquire, ready.first_packet),
        other => other,
    }
}

/// The answer to an acquire that has not stood in line, if there is one.
fn found(ticket: &Ticket, answer: Answer) -> Option<Response> {
    match answer {
        Answer::Find(Found::Lease(lease)) => Some(granted(ticket.operation.session(), &lease)),
        Answer::Find(Found::Duplicate(record)) => Some(duplicate(&ticket.operation, &record)),
        _ => None,
    }
}

/// What an operation that does not stand in line did to the lease.
fn effect(answer: &Answer) -> Effect {
    match answer {
        Answer::Release(Released::Released) | Answer::Force(_) => Effect::Ended,
        Answer::Renew(Renewed::Renewed { expires, .. }) => Effect::Renewed(*expires),
        _ => Effect::None,
    }
}

fn reply_held(refused: Refused<Ticket>) {
    let Refused { waiter, holding, waiters } = refused;
    let response = held(waiter.ticket.operation.session(), &holding, waiters);
    (waiter.ticket.reply)(response);
}

/// The answer to an acquire whose message is answered.
fn duplicate(operation: &Operation, record: &Record) -> Response {
    let session = operation.session();
    METRICS.acquires.with_label_values(&["duplicate"]).inc();
    let message_id = operation.message_id().map(MessageId::as_str);
    let committed_ms_ago = whole_ms(record.committed_ago);
    info!(
        "Message answered already, duplicate rejected {session} message_id={:?} committed_ms_ago={committed_ms_ago}",
        message_id.unwrap_or_default()
    );
    let body = json!({
        "granted": false, "reason": "duplicate", "message_id": message_id, "committed_ms_ago": committed_ms_ago,
    });
    Response::duplicate(&body, record)
}

/// The outcome's word in the metrics, as in the answer.
fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Commit(Committed::New) => "new",
        Answer::Commit(Committed::Again) => "again",
        Answer::Commit(Committed::Duplicate(_)) => "duplicate",
        Answer::Renew(Renewed::Renewed { .. }) => "renewed",
        Answer::Renew(Renewed::MaxHold) => "max_hold",
        Answer::Release(Released::Released) => "released",
        Answer::Force(Forced::Released(_)) => "forced",
        Answer::Force(Forced::NotHeld) => "not_held",
        Answer::Commit(Committed::Lost)
        | Answer::Renew(Renewed::Lost)
        | Answer::Release(Released::Lost) => "lost",
        Answer::Acquire(_) | Answer::Find(_) | Answer::Look(_) => "failed",
    }
}

/// Ends in 503 what nothing was written for.
fn not_served(ticket: Ticket, error: &StoreError) {
    note_failure(&ticket.operation, error);
    (ticket.reply)(Refusal::Unavailable(error.to_string(), None).into());
}

/// Notes that what was asked for ends in 503.
fn note_failure(operation: &Operation, error: &StoreError) {
    debug!("Session lock not served {}: {error}", operation.session());
    count(operation, "failed");
}

/// Counts an outcome of what was asked for.
fn count(operation: &Operation, outcome: &str) {
    let counters = match operation {
        Operation::Acquire(..) | Operation::Find(_) => &METRICS.acquires,
        Operation::Renew(_) => &METRICS.renews,
        Operation::Commit(_) => &METRICS.commits,
        Operation::Release(_) | Operation::Force(_) => &METRICS.releases,
        Operation::Look(_) => return,
    };
    counters.with_label_values(&[outcome]).inc();
}

/// The answer to what does not stand in line.
fn direct(ticket: &Ticket, answer: &Answer) -> Response {
    let session = ticket.operation.session();
    let message = ticket.operation.message_id();
    let message = message.map_or(String::new(), |id| format!(" message_id={:?}", id.as_str()));
    count(&ticket.operation, outcome(answer));
    match answer {
        Answer::Release(Released::Released) => {
            info!("Session lock released and cleaned up successfully {session}{message}");
            Response::new(200, &json!({"released": true}))
        }
        Answer::Commit(Committed::New) => {
            info!("Message committed {session}{message}");
            Response::new(200, &json!({"committed": true, "how": "new"}))
        }
        Answer::Commit(Committed::Again) => {
            debug!("Message committed again by its worker {session}{message}");
            Response::new(200, &json!({"committed": true, "how": "again"}))
        }
        Answer::Commit(Committed::Lost) => {
            info!("Session lock lost before its commit {session}{message}");
            Response::new(409, &json!({"committed": false, "reason": "lost"}))
        }
        Answer::Commit(Committed::Duplicate(record)) => {
            info!("Message answered already, commit rejected {session}{message}");
            Response::duplicate(&json!({"committed": false, "reason": "duplicate"}), record)
        }
        Answer::Release(Released::Lost) => {
            info!("Session lock lost before its release {session}");
            Response::new(409, &json!({"released": false, "reason": "lost"}))
        }
        Answer::Renew(Renewed::Renewed { fencing_token: FencingToken(number), expires }) => {
            let remaining_ms = whole_ms(expires.saturating_duration_since(Instant::now()));
            debug!(
                "Session lock renewed {session} fencing_token={number} remaining_ms={remaining_ms}"
            );
            let body =
                json!({"renewed": true, "remaining_ms": remaining_ms, "fencing_token": number});
            Response::new(200, &body)
        }
        Answer::Renew(Renewed::Lost) => {
            info!("Session lock lost before its renewal {session}");
            Response::new(409, &json!({"renewed": false, "reason": "lost"}))
        }
        Answer::Renew(Renewed::MaxHold) => {
            warn!(
                "Session lock held for as long as it can be (SESSION_LOCK_MAX_HOLD_MS) {session}"
            );
            Response::new(409, &json!({"renewed": false, "reason": "max_hold"}))
        }
        Answer::Force(Forced::Released(holder)) => {
            let peer = ticket.peer.map_or("a local client".to_owned(), |peer| peer.to_string());
            warn!("Session lock released by force {session} by {peer}, {}", ended(*holder));
            Response::new(200, &json!({"released": true}))
        }
        Answer::Force(Forced::NotHeld) => {
            Response::new(409, &json!({"released": false, "reason": "not_held"}))
        }
        Answer::Acquire(_) | Answer::Find(_) | Answer::Look(_) => Refusal::Internal.into(),
    }
}

/// What everybody may know of a session that is held.
fn describe(body: &mut Value, session: &Session, holding: &Holding, waiters: usize) {
    let (fencing_token, held_ms) = match holding.holder {
        Holder::Leased { fencing_token, held_ms } => (Some(fencing_token.0), Some(held_ms)),
        Holder::Legacy => (None, None),
    };
    body["id_prospect"] = json!(session.id_prospect.as_str());
    body["id_device"] = json!(session.id_device.as_str());
    body["remaining_ms"] = json!(whole_ms(holding.remaining()));
    body["held_ms"] = json!(held_ms);
    body["fencing_token"] = json!(fencing_token);
    body["legacy"] = json!(holding.holder == Holder::Legacy);
    body["waiters"] = json!(waiters);
}

fn granted(session: &Session, lease: &Lease) -> Response {
    let Lease { owner_token, fencing_token: FencingToken(fencing_token), how, .. } = lease;
    if lease.is_worn() {
        // This process was paused since; whoever asks again with the token gets what is left.
        METRICS.acquires.with_label_values(&["failed"]).inc();
        let message = "the lease was granted too long ago to be handed out; repeat the same request with this owner_token";
        return Refusal::Unavailable(message.to_owned(), Some(owner_token.clone())).into();
    }
    let line = match how {
        How::New => "Session lock acquired successfully",
        How::Takeover(_) => "Session lock taken over from a stale holder",
        How::Again => "Session lock acquired again by its holder",
    };
    METRICS.acquires.with_label_values(&[how.word()]).inc();
    if *how == How::Takeover(Stale::Lease) {
        METRICS.overruns.inc();
    }
    let remaining_ms = whole_ms(lease.remaining());
    info!(
        "{line} {session} owner=…{owner_token} fencing_token={fencing_token} remaining_ms={remaining_ms}"
    );
    Response::new(
        200,
        &json!({
            "granted": true,
            "owner_token": owner_token.secret(),
            "fencing_token": fencing_token,
            "remaining_ms": remaining_ms,
            "how": how.word(),
        }),
    )
}

fn held(session: &Session, holding: &Holding, waiters: usize) -> Response {
    METRICS.acquires.with_label_values(&["held"]).inc();
    if holding.holder == Holder::Legacy {
        METRICS.legacy_rows_seen.inc();
    }
    let remaining = holding.remaining();
    info!("Session lock held, duplicate rejected {session} remaining_ms={}", whole_ms(remaining));
    let explained_ms = if holding.holder == Holder::Legacy { HOLD_MS } else { TTL_MAX_MS };
    if remaining > Duration::from_millis(explained_ms) + AHEAD_TOLERANCE {
        warn!(
            "Session lock dated ahead of the database's clock, by a program in another time zone? {session} \
             remaining_ms={}; an operator can force its release",
            whole_ms(remaining)
        );
    }
    let body = json!({"granted": false, "reason": "held", "remaining_ms": whole_ms(remaining), "waiters": waiters});
    let retry_after_s = remaining.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX);
    Response {
        retry_after_s: Some(retry_after_s.clamp(1, RETRY_AFTER_MAX_S)),
        ..Response::new(409, &body)
    }
}

fn ended(holder: Holder) -> String {
    match holder {
        Holder::Leased { fencing_token: FencingToken(number), held_ms } => {
            format!("fencing_token={number} held_ms={held_ms}")
        }
        Holder::Legacy => "an old program's row".to_owned(),
    }
}

fn whole_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
