//! A command under a lease: acquire, start, renew, stop it in time, release.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};

use crate::cli::client::{ANSWER_PATIENCE, Client, Ids};
use crate::http::WAIT_MAX_MS;
use crate::lease::OwnerToken;

/// Of a lease's life, in tenths: when it is renewed, so that two renewals may fail; when the
/// command is told to stop, if none succeeded; when it is killed, so that it is gone in time.
const RENEW_AT: u32 = 3;
const STOP_AT: u32 = 8;
const KILL_AT: u32 = 9;
const TENTHS: u32 = 10;

/// How long a command may take to stop once its lease is lost.
const LOST_GRACE: Duration = Duration::from_secs(5);

/// Between two tries to renew while the server does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long to try to reach a server at the start, and to release at the end.
const SERVER_PATIENCE: Duration = Duration::from_secs(5);

/// What to run, and under which lease.
pub struct Task {
    pub ids: Ids,
    pub wait: Duration,
    /// The life of the lease between renewals.
    pub ttl: Duration,
    pub command: Vec<std::ffi::OsString>,
}

/// How it ended.
pub enum Outcome {
    /// With the command's own status.
    Exited(u8),
    Held(String),
    NoServer(String),
    /// The server does not take what it was asked.
    Refused(String),
    /// The command could not be started: its status, as a shell has it.
    NotStarted(u8, String),
}

enum Event {
    Exited(ExitStatus),
    Signal(i32),
}

/// What is to be done when in a lease's life.
struct Deadlines {
    renew: Instant,
    stop: Instant,
    kill: Instant,
}

impl Deadlines {
    /// Of a lease that had this much left at `since` at least.
    fn new(since: Instant, remaining: Duration) -> Self {
        let at = |tenths| since + remaining * tenths / TENTHS;
        Self { renew: at(RENEW_AT), stop: at(STOP_AT), kill: at(KILL_AT) }
    }
}

/// Runs the command under a lease.
pub fn run(client: &Client, task: &Task) -> Outcome {
    let owner_token = OwnerToken::draw();
    let (fencing_token, deadlines) = match acquire(client, task, &owner_token) {
        Ok(granted) => granted,
        Err(outcome) => return outcome,
    };
    let (events, happened) = channel();
    watch_signals(events.clone());
    let mut command = Command::new(&task.command[0]);
    command.args(&task.command[1..]).process_group(0);
    command.env("SESSION_LOCK_FENCING_TOKEN", fencing_token.to_string());
    let outcome = match command.spawn() {
        Ok(mut child) => {
            let group = Pid::from_child(&child);
            thread::spawn(move || {
                // Nobody else waits for it, so this does not fail.
                if let Ok(status) = child.wait() {
                    let _ = events.send(Event::Exited(status));
                }
            });
            supervise(client, task, &owner_token, deadlines, group, &happened)
        }
        Err(error) => {
            let status = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            Outcome::NotStarted(
                status,
                format!("cannot run {}: {error}", task.command[0].display()),
            )
        }
    };
    release(client, task, &owner_token);
    outcome
}

/// If the lease was lost, this changes nothing.
fn release(client: &Client, task: &Task, owner_token: &OwnerToken) {
    let until = Instant::now() + SERVER_PATIENCE;
    loop {
        let token = json!({"owner_token": owner_token.secret()});
        let problem = match client.post("/v1/release", &task.ids, token, SERVER_PATIENCE) {
            Ok(answer) if matches!(answer.status, 200 | 409) => return,
            Ok(answer) => answer.complaint(),
            Err(error) => error,
        };
        if Instant::now() > until {
            return log::warn!("the lease is not released and will expire: {problem}");
        }
        thread::sleep(RETRY_PAUSE);
    }
}

/// Signals to us are for the command. Being stopped is not: a lease that nobody renews would end
/// under a command that goes on.
fn watch_signals(events: Sender<Event>) {
    let ours = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP];
    if let Ok(mut signals) = signal_hook::iterator::Signals::new(ours) {
        thread::spawn(move || {
            for signal in signals.forever().filter(|signal| *signal != SIGTSTP) {
                let _ = events.send(Event::Signal(signal));
            }
        });
    }
}

/// The fencing token, and what the lease's life allows.
fn acquire(
    client: &Client,
    task: &Task,
    owner_token: &OwnerToken,
) -> Result<(u64, Deadlines), Outcome> {
    let until = Instant::now() + task.wait;
    let server_until = until.max(Instant::now() + SERVER_PATIENCE);
    loop {
        let wait_ms = whole_ms(until.saturating_duration_since(Instant::now())).min(WAIT_MAX_MS);
        let fields = json!({
            "owner_token": owner_token.secret(), "ttl_ms": whole_ms(task.ttl), "wait_ms": wait_ms,
        });
        let sent_at = Instant::now();
        let refused = match client.post("/v1/acquire", &task.ids, fields, ANSWER_PATIENCE) {
            Ok(answer) if answer.status == 200 => {
                let fencing_token = answer.number("fencing_token");
                let remaining = Duration::from_millis(answer.number("remaining_ms"));
                // Of a wait in line, the lease has seen only the end: count from now, but make
                // sure of it with a renewal at once.
                let waited = sent_at.elapsed() > remaining / TENTHS;
                let now = Instant::now();
                let mut deadlines = Deadlines::new(if waited { now } else { sent_at }, remaining);
                if waited {
                    deadlines.renew = now;
                }
                return Ok((fencing_token, deadlines));
            }
            Ok(answer) if answer.status == 409 => {
                if Instant::now() < until {
                    thread::sleep(RETRY_PAUSE);
                    continue;
                }
                let word = format!(
                    "held by somebody else, for another {} ms unless it is renewed or released",
                    answer.number("remaining_ms")
                );
                return Err(Outcome::Held(word));
            }
            Ok(answer) if answer.is_refusal() => return Err(Outcome::Refused(answer.complaint())),
            Ok(answer) => answer.complaint(),
            Err(error) => error,
        };
        if Instant::now() > server_until {
            return Err(Outcome::NoServer(refused));
        }
        thread::sleep(RETRY_PAUSE);
    }
}

fn supervise(
    client: &Client,
    task: &Task,
    owner_token: &OwnerToken,
    mut deadlines: Deadlines,
    group: Pid,
    happened: &Receiver<Event>,
) -> Outcome {
    let fields = json!({"owner_token": owner_token.secret(), "ttl_ms": whole_ms(task.ttl)});
    loop {
        let next = deadlines.renew.min(deadlines.stop);
        match happened.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Event::Exited(status)) => return exited(status),
            Ok(Event::Signal(signal)) => {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    let _ = kill_process_group(group, signal);
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The thread that waits for the command lives as long as the command.
            Err(RecvTimeoutError::Disconnected) => return Outcome::Exited(1),
        }
        let sent_at = Instant::now();
        if sent_at >= deadlines.stop {
            log::error!("the lease ends, and cannot be renewed; stopping the command");
            return stop(group, deadlines.kill, happened);
        }
        let patience = SERVER_PATIENCE.min(deadlines.stop - sent_at);
        match client.post("/v1/renew", &task.ids, fields.clone(), patience) {
            Ok(answer) if answer.status == 200 => {
                let remaining = Duration::from_millis(answer.number("remaining_ms"));
                deadlines = Deadlines::new(sent_at, remaining.min(task.ttl));
                if remaining < task.ttl * STOP_AT / TENTHS {
                    // Cut short by the longest hold: there is no more to be had.
                    deadlines.renew = deadlines.stop;
                }
                continue;
            }
            Ok(answer) if answer.status == 409 => {
                log::error!("the lease is {}; stopping the command", answer.reason());
                // Somebody else may be at it already.
                let kill = deadlines.kill.min(Instant::now() + LOST_GRACE);
                return stop(group, kill, happened);
            }
            Ok(answer) => log::warn!("could not renew the lease: {}", answer.complaint()),
            Err(error) => log::warn!("could not renew the lease: {error}"),
        }
        deadlines.renew = Instant::now() + RETRY_PAUSE;
    }
}

/// Ends the command, and all that it started in its group, by `kill_at` at the latest.
fn stop(group: Pid, kill_at: Instant, happened: &Receiver<Event>) -> Outcome {
    let _ = kill_process_group(group, Signal::TERM);
    let mut status = None;
    while Instant::now() < kill_at && status.is_none() {
        match happened.recv_timeout(kill_at.saturating_duration_since(Instant::now())) {
            Ok(Event::Exited(exited)) => status = Some(exited),
            Ok(Event::Signal(_)) => {}
            Err(_) => break,
        }
    }
    // The command may be gone, and something that it started still there.
    let _ = kill_process_group(group, Signal::KILL);
    while status.is_none() {
        match happened.recv() {
            Ok(Event::Exited(exited)) => status = Some(exited),
            Ok(Event::Signal(_)) => {}
            Err(_) => break,
        }
    }
    status.map_or(Outcome::Exited(1), exited)
}

/// The status as a shell has it: 128 and the signal's number, if it was ended by one.
fn exited(status: ExitStatus) -> Outcome {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Outcome::Exited(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn whole_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
