//! The command of `session-lock run`, in a process group of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpgrp, kill_process_group, waitpid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use signal_hook::consts::{
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
};
use signal_hook::iterator::Signals;

use super::exit_status;

/// The signals that are forwarded to the command. SIGTSTP is caught and dropped: if this process
/// were stopped, it could not renew the lease, which would expire while the command runs.
const SIGNALS: [i32; 7] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP];

pub struct Child {
    group: Pid,
    exited: Receiver<u8>,
}

impl Child {
    /// Starts the command. From then on, signals to this process are forwarded to the command.
    pub fn start(command: &[OsString], fencing_token: u64) -> io::Result<Self> {
        let mut signals = Signals::new(SIGNALS)?;
        let child = Command::new(&command[0])
            .args(&command[1..])
            .env("SESSION_LOCK_FENCING_TOKEN", fencing_token.to_string())
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        // SIGTTOU would stop this process when it takes the terminal back from the command, or when
        // it logs to a terminal after `stty tostop`. The threads inherit the mask. The command must
        // not, so it is started before.
        SigSet::from(NixSignal::SIGTTOU).thread_block()?;
        thread::spawn(move || {
            let signals = signals.forever().filter(|signal| *signal != SIGTSTP);
            signals.filter_map(Signal::from_named_raw).for_each(|signal| interrupt(group, signal));
        });
        let (sender, exited) = channel();
        thread::spawn(move || sender.send(wait(group)));
        Ok(Self { group, exited })
    }

    pub fn wait_until(&self, deadline: Instant) -> Option<u8> {
        self.exited.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Sends SIGTERM to the command, waits for it until the deadline, and kills its process group.
    pub fn stop(&self, deadline: Instant) -> u8 {
        interrupt(self.group, Signal::TERM);
        let status = self.wait_until(deadline);
        // Processes that the command started may still run after it has exited.
        kill(self.group, Signal::KILL);
        status.or_else(|| self.exited.recv().ok()).unwrap_or(exit_status::FAILED)
    }
}

/// Waits until the command exits. Returns its exit status. If the command is stopped because it
/// wants the terminal, it gets the terminal. Any other stop is logged once.
fn wait(group: Pid) -> u8 {
    let terminal = Terminal::of_this_process();
    let mut is_first_stop = true;
    loop {
        let status = match waitpid(Some(group), WaitOptions::UNTRACED) {
            Ok(Some((_, status))) => status,
            Err(Errno::INTR) => continue,
            _ => return exit_status::FAILED,
        };
        let wants_terminal = matches!(status.stopping_signal(), Some(SIGTTIN | SIGTTOU));
        if wants_terminal && terminal.pass(getpgrp(), group) {
            kill(group, Signal::CONT);
            continue;
        }
        // While a stopped command has the terminal, Ctrl-C does not reach this process.
        terminal.pass(group, getpgrp());
        if !status.stopped() {
            return shell_status(ExitStatus::from_raw(status.as_raw()));
        }
        if is_first_stop {
            let group = group.as_raw_pid();
            log::warn!(
                "the command is stopped and keeps its lease; kill -CONT -{group} continues it"
            );
        }
        is_first_stop = false;
    }
}

/// The terminal that this process was started in, if any.
struct Terminal(Option<File>);

impl Terminal {
    fn of_this_process() -> Self {
        Self(File::options().read(true).write(true).open("/dev/tty").ok())
    }

    /// Makes `to` the foreground process group of the terminal, if `from` is. Returns whether it
    /// did.
    fn pass(&self, from: Pid, to: Pid) -> bool {
        let Self(Some(terminal)) = self else { return false };
        tcgetpgrp(terminal) == Ok(from) && tcsetpgrp(terminal, to).is_ok()
    }
}

/// Signals a process group and continues it: a stopped process does not handle the signal.
fn interrupt(group: Pid, signal: Signal) {
    kill(group, signal);
    kill(group, Signal::CONT);
}

/// Signals a process group. Does nothing if the group no longer exists.
fn kill(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// The exit status as a shell reports it.
fn shell_status(status: ExitStatus) -> u8 {
    let status = status.code().or(status.signal().map(|signal| exit_status::SIGNAL + signal));
    status.and_then(|status| status.try_into().ok()).unwrap_or(exit_status::FAILED)
}
