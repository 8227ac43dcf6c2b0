//! A bot's worker: it acquires a conversation, renews, commits, releases, and crashes now and then.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use session_lock::testing::OwnerToken;

use crate::conversation::{Conversation, name_in};
use crate::form::Form;
use crate::history::{Asked, Event, What};
use crate::run::{Run, SESSIONS};
use crate::world::{Reply, http_agent};

/// After this a request counts as unanswered.
const TIMEOUT: Duration = Duration::from_secs(20);

pub struct Client<'a> {
    run: &'a Run,
    number: u64,
    sessions: &'a [Conversation],
    rng: Rng,
    agent: ureq::Agent,
    form: Form,
}

/// An answer, if there was one, and when it was asked for and came.
struct Answered {
    asked: Asked,
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
    pub fn new(
        run: &'a Run,
        number: u64,
        sessions: &'a [Conversation],
        form: Form,
        seed: u64,
    ) -> Self {
        let rng = Rng::with_seed(seed + number);
        Self { run, number, sessions, rng, agent: http_agent(TIMEOUT), form }
    }

    pub fn run(mut self) {
        while !self.run.done.load(Ordering::Relaxed) {
            self.turn();
        }
    }

    /// Asks any of the servers.
    fn ask(&mut self, operation: &'static str, body: &Value) -> Answered {
        let number = self.rng.usize(..self.run.servers.len());
        let server = self.run.servers[number].read().unwrap().clone();
        let called = self.run.began.elapsed();
        let url = format!("http://{server}/v1/{operation}");
        let reply = Reply::try_read(self.form.post(&self.agent, &url, body)).ok();
        let came = self.run.began.elapsed();
        if let Some(reply) = &reply {
            assert!(matches!(reply.status, 200 | 409 | 503), "{reply:?}");
            let waited = Duration::from_millis(body["wait_ms"].as_u64().unwrap_or(0));
            let took = came.saturating_sub(called + waited).as_millis();
            let took = u64::try_from(took).unwrap_or(u64::MAX);
            self.run.slowest_ms.fetch_max(took, Ordering::Relaxed);
            if reply.status == 200 {
                self.run.count_accepted([self.form.name(), name_in(body)]);
            }
        } else {
            let asked = (number, called, came);
            self.run.unanswered.lock().unwrap().push(asked);
            thread::sleep(Duration::from_millis(20));
        }
        let owner_token = body["owner_token"].as_str();
        let drawn = || reply.as_ref()?.json["owner_token"].as_str();
        let asked = Asked {
            client: self.number,
            operation,
            owner_token: owner_token.or_else(drawn).map(str::to_owned),
            ttl_ms: body["ttl_ms"].as_u64(),
        };
        Answered { asked, called, came, reply }
    }

    fn record(&self, session: usize, message: Option<u64>, answered: &Answered, what: What) {
        let Answered { asked, called, came, .. } = answered;
        let asked = asked.clone();
        let event = Event { session, message, called: *called, answered: *came, asked, what };
        self.run.history.lock().unwrap().push(event);
    }

    fn turn(&mut self) {
        let session = self.rng.usize(..self.sessions.len());
        let message = self.choose_message(session);
        let ttl_ms = self.rng.u64(1_000..5_000);
        let Some(token) = self.acquire(session, message, ttl_ms) else {
            thread::sleep(Duration::from_millis(self.rng.u64(..10)));
            return;
        };
        let mut work_ms = self.rng.u64(..20);
        if ttl_ms < 1_200 {
            // It works too long, and another client may take over.
            work_ms += self.rng.u64(500..2_000);
        }
        thread::sleep(Duration::from_millis(work_ms));
        if self.rng.u32(..20) == 0 {
            // It crashes.
            return;
        }
        if self.rng.u32(..4) == 0 {
            self.renew(session, &token);
        }
        if let Some(message) = message {
            self.commit(session, message, &token);
        }
        self.release(session, token);
    }

    /// A message of its own, one that other clients have now, or none.
    fn choose_message(&mut self, session: usize) -> Option<u64> {
        match self.rng.u32(..3) {
            0 => Some(self.run.messages.fetch_add(1, Ordering::Relaxed) * 2 + 1),
            1 => Some((self.run.began.elapsed().as_secs() * SESSIONS as u64 + session as u64) * 2),
            _ => None,
        }
    }

    fn owned(&mut self, session: usize, token: &str) -> Value {
        self.sessions[session].with(&mut self.rng, json!({"owner_token": token}))
    }

    fn acquire(&mut self, session: usize, message: Option<u64>, ttl_ms: u64) -> Option<String> {
        let mut body = self.sessions[session].with(&mut self.rng, json!({"ttl_ms": ttl_ms}));
        if self.rng.bool() {
            body["owner_token"] = json!(OwnerToken::draw().secret());
        }
        if self.rng.u32(..4) == 0 {
            body["wait_ms"] = json!(self.rng.u64(..1_500));
        }
        if let Some(message) = message {
            body["message_id"] = json!(message_id(message));
        }
        for _ in 0..4 {
            let answered = self.ask("acquire", &body);
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
            self.record(session, message, &answered, what.clone());
            match what {
                What::Granted { token, .. } => return Some(token),
                What::AcquireUnknown => {
                    // It repeats the request, with the token of the 503 if there is one.
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

    fn renew(&mut self, session: usize, token: &str) {
        let mut body = self.owned(session, token);
        // Never less than it has.
        body["ttl_ms"] = json!(5_000);
        let answered = self.ask("renew", &body);
        let what = match answered.status() {
            200 => What::Renewed { token: token.to_owned(), remaining: answered.remaining() },
            409 => What::Lost(token.to_owned()),
            _ => What::RenewUnknown,
        };
        self.record(session, None, &answered, what);
    }

    fn commit(&mut self, session: usize, message: u64, token: &str) {
        let mut body = self.owned(session, token);
        body["message_id"] = json!(message_id(message));
        for _ in 0..3 {
            let answered = self.ask("commit", &body);
            let what = match (answered.status(), answered.text("reason").as_deref()) {
                (200, _) => What::Committed(token.to_owned()),
                (409, Some("duplicate")) => What::CommittedAlready,
                (409, _) => What::Lost(token.to_owned()),
                _ => What::CommitUnknown,
            };
            let is_unknown = matches!(what, What::CommitUnknown);
            self.record(session, Some(message), &answered, what);
            if !is_unknown {
                return;
            }
        }
    }

    fn release(&mut self, session: usize, token: String) {
        let body = self.owned(session, &token);
        let answered = self.ask("release", &body);
        let what = match answered.status() {
            200 => What::Released(token),
            409 => What::Lost(token),
            _ => What::ReleaseUnknown(token),
        };
        self.record(session, None, &answered, what);
    }
}

fn message_id(message: u64) -> String {
    format!("message-{message}")
}
