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
        let child = Command::new(&command[0])
            .args(&command[1..])
            .env("SESSION_LOCK_FENCING_TOKEN", fencing_token.to_string())
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        // It would stop a process that takes the terminal back from its command, or that logs to a
        // terminal after `stty tostop`. The threads inherit this, the command must not.
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

    /// Tells the command to stop, and kills it and all that it started at the deadline.
    pub fn stop(&self, deadline: Instant) -> u8 {
        interrupt(self.group, Signal::TERM);
        let status = self.wait_until(deadline);
        // If the command has exited, something that it started may still run.
        kill(self.group, Signal::KILL);
        status.or_else(|| self.exited.recv().ok()).unwrap_or(exit_status::FAILED)
    }
}

/// Waits for the end of the command. Returns its exit status. If the command stops because it wants
/// the terminal, it gets it. Otherwise this says that the command is stopped.
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
        // A stopped command would keep Ctrl-C from this process.
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

    /// Makes a process group the one that may read the terminal, if it is another one's now.
    fn pass(&self, from: Pid, to: Pid) -> bool {
        let Self(Some(terminal)) = self else { return false };
        tcgetpgrp(terminal) == Ok(from) && tcsetpgrp(terminal, to).is_ok()
    }
}

/// Signals a process group and continues it: while it is stopped, it does nothing about a signal.
fn interrupt(group: Pid, signal: Signal) {
    kill(group, signal);
    kill(group, Signal::CONT);
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
