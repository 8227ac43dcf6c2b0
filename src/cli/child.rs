//! The command of `session-lock run`, in a process group of its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::exit_status;

/// The signals that are passed on to the command. SIGTSTP is caught and dropped: a stopped process
/// does not renew its lease, which would end while the command goes on.
const SIGNALS: [i32; 7] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP];

pub struct Child {
    group: Pid,
    exited: Receiver<u8>,
}

impl Child {
    /// Starts the command. From now on, signals to this process are for the command.
    pub fn start(command: &[OsString], fencing_token: u64) -> io::Result<Self> {
        let mut signals = Signals::new(SIGNALS)?;
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .env("SESSION_LOCK_FENCING_TOKEN", fencing_token.to_string())
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        thread::spawn(move || {
            let signals = signals.forever().filter(|signal| *signal != SIGTSTP);
            signals.filter_map(Signal::from_named_raw).for_each(|signal| kill(group, signal));
        });
        let (sender, exited) = channel();
        thread::spawn(move || sender.send(child.wait().map_or(exit_status::FAILED, shell_status)));
        Ok(Self { group, exited })
    }

    pub fn wait_until(&self, deadline: Instant) -> Option<u8> {
        self.exited.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Tells the command to stop, and kills it and all that it started at the deadline.
    pub fn stop(&self, deadline: Instant) -> u8 {
        kill(self.group, Signal::TERM);
        let status = self.wait_until(deadline);
        // If the command has exited, something that it started may still run.
        kill(self.group, Signal::KILL);
        status.or_else(|| self.exited.recv().ok()).unwrap_or(exit_status::FAILED)
    }
}

/// Signals a process group, unless it is gone.
fn kill(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// The exit status as a shell reports it.
fn shell_status(status: ExitStatus) -> u8 {
    let status = status.code().or(status.signal().map(|signal| exit_status::SIGNAL + signal));
    status.and_then(|status| status.try_into().ok()).unwrap_or(exit_status::FAILED)
}
