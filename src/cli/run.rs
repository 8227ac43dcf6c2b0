//! `session-lock run`: a command under a lease, which is stopped before the lease ends.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::child::Child;
use super::client::{ANSWER_TIMEOUT, Client, RequestError, connect, ids};
use super::{Failure, exit_status};
use crate::http::api::WAIT_MAX_MS;
use crate::lease::{OwnerToken, TTL_DEFAULT_MS};

pub const HELP: &str =
    "session-lock run --device D --prospect P [--wait 10s] [--ttl 30s] -- CMD ...
      runs CMD under a lease and ends with its status: 128+n for a signal, 126 or 127 if it cannot
      be started; 75: held by somebody else, 69: no server, 2: wrong flag [--wait 0, --ttl 30s]";

/// When to act within the rest of a lease, in tenths of it: renew, so that two renewals may fail;
/// tell the command to stop, if none succeeded; kill it, so that it is gone before the lease ends.
const RENEW_AT: u32 = 3;
const STOP_AT: u32 = 8;
const KILL_AT: u32 = 9;
const TENTHS: u32 = 10;

/// How long a command may take to stop once its lease is lost.
const LOST_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts of a request that no server answers.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// How long to try to reach a server: to acquire, for each renewal, and to release. A restart of
/// the service takes less.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let (client, flags) = connect(arguments, &["device", "prospect", "wait", "ttl"], &[])?;
    let ttl = flags.duration("ttl")?.unwrap_or(Duration::from_millis(TTL_DEFAULT_MS));
    let wait = flags.duration("wait")?.unwrap_or_default();
    let mut fields = ids(&flags)?;
    fields["owner_token"] = OwnerToken::draw().secret().into();
    let lease = Lease { client, fields, ttl };
    let command = flags.rest;
    if command.is_empty() {
        return Err(Failure::usage("run needs a command, after --"));
    }
    let (fencing_token, deadlines) = lease.acquire(wait)?;
    let result = match Child::start(&command, fencing_token) {
        Ok(child) => match supervise(&lease, &child, deadlines) {
            exit_status::OK => Ok(()),
            status => Err(Failure { status, message: None }),
        },
        Err(error) => {
            let status = match error.kind() {
                ErrorKind::NotFound => exit_status::NOT_FOUND,
                _ => exit_status::CANNOT_START,
            };
            Err(Failure::new(status, format!("cannot run {}: {error}", command[0].display())))
        }
    };
    lease.release();
    result
}

/// Renews the lease until the command exits, and stops the command if that fails. Returns the
/// exit status.
fn supervise(lease: &Lease, child: &Child, mut deadlines: Deadlines) -> u8 {
    loop {
        if let Some(status) = child.wait_until(deadlines.renew.min(deadlines.stop)) {
            return status;
        }
        let sent_at = Instant::now();
        if sent_at >= deadlines.stop {
            log::error!("the lease ends, and cannot be renewed; stopping the command");
            return child.stop(deadlines.kill);
        }
        match lease.renew(SERVER_TIMEOUT.min(deadlines.stop - sent_at)) {
            Ok(remaining) => {
                deadlines = Deadlines::new(sent_at, remaining.min(lease.ttl));
                if remaining < lease.ttl * STOP_AT / TENTHS {
                    // The longest hold cuts the lease short, so that another renewal adds nothing.
                    deadlines.renew = deadlines.stop;
                }
            }
            Err(RequestError::Conflict(answer)) => {
                let reason = answer["reason"].as_str().unwrap_or("lost");
                log::error!("the lease is {reason}; stopping the command");
                // Another worker may hold the session already.
                return child.stop(deadlines.kill.min(Instant::now() + LOST_TIMEOUT));
            }
            Err(error) => {
                log::warn!("could not renew the lease: {error}");
                deadlines.renew = Instant::now() + RETRY_INTERVAL;
            }
        }
    }
}

/// When to act within the rest of a lease.
struct Deadlines {
    renew: Instant,
    stop: Instant,
    kill: Instant,
}

impl Deadlines {
    /// The deadlines of a lease that had at least `remaining` left at `since`.
    fn new(since: Instant, remaining: Duration) -> Self {
        let at = |tenths| since + remaining * tenths / TENTHS;
        Self { renew: at(RENEW_AT), stop: at(STOP_AT), kill: at(KILL_AT) }
    }
}

/// A lease on a server.
struct Lease {
    client: Client,
    /// The fields of all its requests: the ids and the owner token.
    fields: Value,
    ttl: Duration,
}

impl Lease {
    /// Waits for the lease. Returns its fencing token and deadlines.
    fn acquire(&self, wait: Duration) -> Result<(u64, Deadlines), Failure> {
        let wait_until = Instant::now() + wait;
        let server_until = wait_until.max(Instant::now() + SERVER_TIMEOUT);
        let mut sent_at = Instant::now();
        let request = || {
            sent_at = Instant::now();
            let wait_ms = ms(wait_until.saturating_duration_since(sent_at)).min(WAIT_MAX_MS);
            let fields = [("ttl_ms", ms(self.ttl)), ("wait_ms", wait_ms)];
            self.post("/v1/acquire", &fields, ANSWER_TIMEOUT)
        };
        let is_worth_a_retry = |error: &RequestError| match error {
            RequestError::Conflict(_) => Instant::now() < wait_until,
            RequestError::Refused(_) => false,
            RequestError::NoServer(_) => Instant::now() <= server_until,
        };
        match retry(request, is_worth_a_retry) {
            Ok(answer) => {
                let deadlines = deadlines_of_grant(sent_at, remaining(&answer));
                Ok((answer["fencing_token"].as_u64().unwrap_or(0), deadlines))
            }
            Err(RequestError::Conflict(answer)) => {
                let message = format!(
                    "held by somebody else, for another {} ms unless it is renewed or released",
                    ms(remaining(&answer))
                );
                Err(Failure::new(exit_status::HELD, message))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Renews the lease. Returns how long it lasts from now on.
    fn renew(&self, timeout: Duration) -> Result<Duration, RequestError> {
        let answer = self.post("/v1/renew", &[("ttl_ms", ms(self.ttl))], timeout)?;
        Ok(remaining(&answer))
    }

    /// Releases the lease. If it was lost, this changes nothing.
    fn release(&self) {
        let until = Instant::now() + SERVER_TIMEOUT;
        let request = || match self.post("/v1/release", &[], SERVER_TIMEOUT) {
            Err(RequestError::Conflict(answer)) => Ok(answer),
            result => result,
        };
        if let Err(error) = retry(request, |_| Instant::now() <= until) {
            log::warn!("the lease is not released and will expire: {error}");
        }
    }

    fn post(
        &self,
        path: &str,
        fields: &[(&str, u64)],
        timeout: Duration,
    ) -> Result<Value, RequestError> {
        let mut request = self.fields.clone();
        for (name, value) in fields {
            request[name] = json!(value);
        }
        self.client.post(path, &request, timeout)
    }
}

/// Repeats a request while its error is worth it.
fn retry(
    mut request: impl FnMut() -> Result<Value, RequestError>,
    is_worth_a_retry: impl Fn(&RequestError) -> bool,
) -> Result<Value, RequestError> {
    loop {
        let result = request();
        if !result.as_ref().is_err_and(&is_worth_a_retry) {
            return result;
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

fn deadlines_of_grant(sent_at: Instant, remaining: Duration) -> Deadlines {
    let now = Instant::now();
    if now - sent_at <= remaining / TENTHS {
        return Deadlines::new(sent_at, remaining);
    }
    // The request waited in a queue, and the lease began at the end of the wait: count from now,
    // which is a little late, and renew at once, which corrects that.
    Deadlines { renew: now, ..Deadlines::new(now, remaining) }
}

fn remaining(answer: &Value) -> Duration {
    Duration::from_millis(answer["remaining_ms"].as_u64().unwrap_or(0))
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
