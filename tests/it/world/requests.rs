//! Requests to the service through an HTTP library.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Reply, Service, Session, eventually};

/// A client for which a refusal is an answer, not an error.
pub fn http_agent(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    ureq::Agent::new_with_config(config.timeout_global(Some(timeout)).build())
}

impl Service {
    pub fn http_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn post(&self, path: &str, body: impl Display) -> Reply {
        let request = self.agent.post(self.http_url() + path);
        Reply::try_read(request.send(body.to_string())).unwrap()
    }

    pub fn get(&self, path: &str) -> Reply {
        Reply::try_read(self.agent.get(self.http_url() + path).call()).unwrap()
    }

    /// An answer that is not JSON.
    pub fn text(&self, path: &str) -> String {
        let response = self.agent.get(self.http_url() + path).call();
        response.unwrap().body_mut().read_to_string().unwrap()
    }

    pub fn acquire(&self, session: &Session, fields: Value) -> Reply {
        self.post("/v1/acquire", session.with(fields))
    }

    /// Acquires a session, and waits for it if it is held.
    pub fn acquire_waiting(&self, session: &Session, wait_ms: u64) -> Reply {
        self.acquire(session, json!({"wait_ms": wait_ms}))
    }

    pub fn acquire_for(&self, session: &Session, message_id: &str) -> Reply {
        self.acquire(session, json!({"message_id": message_id}))
    }

    /// Acquires a session that must be free. Returns its owner token.
    pub fn hold(&self, session: &Session) -> String {
        self.hold_with(session, json!({}))
    }

    /// Acquires a free session for a message. Returns the owner token.
    pub fn hold_for(&self, session: &Session, message_id: &str) -> String {
        self.hold_with(session, json!({"message_id": message_id}))
    }

    fn hold_with(&self, session: &Session, fields: Value) -> String {
        let reply = self.acquire(session, fields);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text("owner_token")
    }

    pub fn renew(&self, session: &Session, owner_token: &str, ttl_ms: u64) -> Reply {
        let fields = json!({"owner_token": owner_token, "ttl_ms": ttl_ms});
        self.post("/v1/renew", session.with(fields))
    }

    pub fn commit(&self, session: &Session, owner_token: &str, message_id: &str) -> Reply {
        let fields = json!({"owner_token": owner_token, "message_id": message_id});
        self.post("/v1/commit", session.with(fields))
    }

    pub fn release(&self, session: &Session, owner_token: &str) -> Reply {
        self.post("/v1/release", session.with(json!({"owner_token": owner_token})))
    }

    /// Releases and records a message, whose result is the owner token.
    pub fn release_with(&self, session: &Session, owner_token: &str, message_id: &str) -> Reply {
        let fields =
            json!({"owner_token": owner_token, "message_id": message_id, "result": owner_token});
        self.post("/v1/release", session.with(fields))
    }

    /// A forced release.
    pub fn force(&self, session: &Session, mut fields: Value) -> Reply {
        fields["force"] = json!(true);
        self.post("/v1/release", session.with(fields))
    }

    /// Waits until all workers can acquire and release again. Returns how long that took.
    pub fn recovery(&self) -> Duration {
        /// Send more requests at once than there are workers.
        const CLIENTS: usize = 8;
        let began = Instant::now();
        let works = || {
            let session = Session::new();
            let reply = self.acquire(&session, json!({}));
            reply.status == 200 && self.release(&session, &reply.text("owner_token")).status == 200
        };
        let all_work = || {
            thread::scope(|scope| {
                let tries: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(works)).collect();
                tries.into_iter().all(|works| works.join().unwrap())
            })
        };
        eventually(
            || {
                format!(
                    "all works again: {:?}",
                    self.log().iter().rev().take(5).collect::<Vec<_>>()
                )
            },
            || (all_work() && self.get("/readyz").status == 200).then_some(()),
        );
        began.elapsed()
    }

    /// The number of requests that wait for a session.
    pub fn waiters(&self, session: &Session) -> u64 {
        self.get(&session.path()).json["waiters"].as_u64().unwrap_or(0)
    }

    /// Waits until this many requests wait for a session.
    pub fn wait_for_waiters(&self, session: &Session, count: u64) {
        eventually(
            || format!("{count} wait for {session}"),
            || (self.waiters(session) == count).then_some(()),
        );
    }
}
