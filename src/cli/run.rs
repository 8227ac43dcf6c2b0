//! `session-lock run`: runs a command under a lease, and stops the command before the lease ends.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::child::Child;
use super::client::RequestError::{self, Conflict, NoServer, Refused};
use super::client::{ANSWER_TIMEOUT, Client, connect, ids};
use super::{Failure, exit_status};
use crate::http::WAIT_MAX_MS;
use crate::lease::{OwnerToken, TTL_DEFAULT_MS};

/// What `--help` says after the name.
pub const HELP: &str = "--device D --prospect P [--wait 10s] [--ttl 30s] -- CMD ...
      run CMD under a lease and exit with its status: 128+n for a signal, 126 or 127 if it cannot
      be started; 75: held by another worker, 69: no server, 2: wrong flag; CMD keeps its lease
      while it is stopped (Ctrl-Z) [--wait 0, --ttl 30s]";

/// When to act, in tenths of the remaining time of a lease: renew, so early that two renewals may
/// fail; stop the command, if no renewal succeeded; kill the command, so that it ends before the
/// lease.
const RENEW_AT: u32 = 3;
const STOP_AT: u32 = 8;
const KILL_AT: u32 = 9;
const TENTHS: u32 = 10;

/// How long a command may take to stop after its lease was lost.
const LOST_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between attempts of a request that no server answers.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// How long an acquire, a renewal or a release tries to reach a server. A restart of the service
/// takes less.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let (client, flags) = connect(arguments, &["device", "prospect", "wait", "ttl"], &[])?;
    let ttl_ms = flags.duration("ttl")?.map_or(TTL_DEFAULT_MS, whole_ms);
    let wait = flags.duration("wait")?.unwrap_or_default();
    let mut fields = ids(&flags)?;
    fields["owner_token"] = OwnerToken::draw().secret().into();
    let lease = Lease { client, fields, ttl_ms };
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

/// Renews the lease until the command exits, and stops the command if the lease cannot be renewed.
/// Returns the exit status.
fn supervise(lease: &Lease, child: &Child, mut deadlines: Deadlines) -> u8 {
    loop {
        if let Some(status) = child.wait_until(deadlines.renew.min(deadlines.stop)) {
            return status;
        }
        let sent_at = Instant::now();
        if sent_at >= deadlines.stop {
            log::error!("the lease cannot be renewed and is about to end; stopping the command");
            return child.stop(deadlines.kill);
        }
        match lease.renew(SERVER_TIMEOUT.min(deadlines.stop - sent_at)) {
            Ok(remaining) => {
                let ttl = Duration::from_millis(lease.ttl_ms);
                deadlines = Deadlines::new(sent_at, remaining.min(ttl));
                if remaining < ttl * STOP_AT / TENTHS {
                    // The longest hold limits this lease, so another renewal would add nothing.
                    deadlines.renew = deadlines.stop;
                }
            }
            Err(Conflict(answer)) => {
                let reason = answer["reason"].as_str().unwrap_or("lost");
                log::error!("the lease is {reason}; stopping the command");
                // Another worker may already hold the session.
                return child.stop(deadlines.kill.min(Instant::now() + LOST_TIMEOUT));
            }
            Err(Refused(error) | NoServer(error)) => {
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

struct Lease {
    client: Client,
    /// The fields of every request: the ids and the owner token.
    fields: Value,
    ttl_ms: u64,
}

impl Lease {
    /// Waits for the lease. Returns its fencing token and deadlines.
    fn acquire(&self, wait: Duration) -> Result<(u64, Deadlines), Failure> {
        let wait_until = Instant::now() + wait;
        let server_until = wait_until.max(Instant::now() + SERVER_TIMEOUT);
        let mut sent_at = Instant::now();
        let request = || {
            sent_at = Instant::now();
            let wait_ms = whole_ms(wait_until.saturating_duration_since(sent_at));
            let mut fields = self.fields.clone();
            fields["ttl_ms"] = self.ttl_ms.into();
            fields["wait_ms"] = wait_ms.min(WAIT_MAX_MS).into();
            self.client.post("/v1/acquire", &fields, ANSWER_TIMEOUT, "fencing_token")
        };
        let is_worth_a_retry = |error: &RequestError| match error {
            Conflict(_) => Instant::now() < wait_until,
            Refused(_) => false,
            NoServer(_) => Instant::now() <= server_until,
        };
        match retry(request, is_worth_a_retry) {
            Ok(answer) => {
                let remaining = Duration::from_millis(number(&answer, "remaining_ms"));
                let deadlines = if sent_at.elapsed() <= remaining / TENTHS {
                    Deadlines::new(sent_at, remaining)
                } else {
                    self.confirm().inspect_err(|_| self.release())?
                };
                Ok((number(&answer, "fencing_token"), deadlines))
            }
            Err(Conflict(answer)) => {
                let message = format!(
                    "held by another worker; expires in {} ms unless it is renewed or released",
                    number(&answer, "remaining_ms")
                );
                Err(Failure::new(exit_status::HELD, message))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Renews a lease whose grant was not answered at once, until a renewal is. How much of the lease
    /// is left was not known: it may have begun after a wait in a queue, or the answer was late.
    fn confirm(&self) -> Result<Deadlines, Failure> {
        let until = Instant::now() + SERVER_TIMEOUT;
        loop {
            let sent_at = Instant::now();
            let renewed = self.renew(SERVER_TIMEOUT);
            let is_over = Instant::now() > until;
            match renewed {
                Ok(remaining) if sent_at.elapsed() <= remaining / TENTHS => {
                    return Ok(Deadlines::new(sent_at, remaining));
                }
                Ok(_) if is_over => {
                    let text = "the server answers too slowly for a lease of this ttl";
                    return Err(Failure::new(exit_status::NO_SERVER, text));
                }
                Err(Conflict(_)) => {
                    let text = "the lease ended before its grant was answered";
                    return Err(Failure::new(exit_status::HELD, text));
                }
                Err(NoServer(_)) if !is_over => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Renews the lease. Returns its remaining time.
    fn renew(&self, timeout: Duration) -> Result<Duration, RequestError> {
        let mut fields = self.fields.clone();
        fields["ttl_ms"] = self.ttl_ms.into();
        let answer = self.client.post("/v1/renew", &fields, timeout, "renewed")?;
        Ok(Duration::from_millis(number(&answer, "remaining_ms")))
    }

    /// Releases the lease. If it was lost, this changes nothing.
    fn release(&self) {
        let until = Instant::now() + SERVER_TIMEOUT;
        let is_worth_a_retry =
            |error: &RequestError| !matches!(error, Conflict(_)) && Instant::now() <= until;
        let request = || self.client.post("/v1/release", &self.fields, SERVER_TIMEOUT, "released");
        if let Err(Refused(error) | NoServer(error)) = retry(request, is_worth_a_retry) {
            log::warn!("could not release the lease, which will expire: {error}");
        }
    }
}

/// Repeats a request as long as its error is worth a retry.
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

/// A number in an answer; 0 if it is missing.
fn number(answer: &Value, field: &str) -> u64 {
    answer[field].as_u64().unwrap_or(0)
}

fn whole_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
