//! The service as a child process: its start, log, signals and end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::net::{getpeername, getsockname};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{Endpoint, KillOnDrop, TIMEOUT, binary, eventually, http_agent, signal};

/// The real binary, serving.
pub struct Service {
    child: KillOnDrop,
    pub endpoint: Endpoint,
    /// The endpoint's address, unless it is a Unix socket.
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    pub(super) agent: ureq::Agent,
}

impl Service {
    /// Starts the service and waits until it is ready.
    pub fn start(url: &str, flags: &[&str]) -> Self {
        let service = Self::start_unready(url, flags);
        service.wait_until_ready();
        service
    }

    /// Starts the service and waits until it listens.
    pub fn start_unready(url: &str, flags: &[&str]) -> Self {
        Self::spawn(Command::new(binary()).args(["serve", "--database-url", url]).args(flags))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let command = command.env("SESSION_LOCK_LISTEN", "127.0.0.1:0");
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line));
        });
        let nowhere = ([127, 0, 0, 1], 0).into();
        let mut service = Self {
            child: KillOnDrop(child),
            endpoint: Endpoint::Tcp(nowhere),
            address: nowhere,
            log,
            agent: http_agent(TIMEOUT),
        };
        let line = service.wait_for_line("listening on ");
        let at = line.rsplit(' ').next().unwrap();
        service.endpoint = match at.strip_prefix("unix:") {
            Some(path) => Endpoint::Unix(path.into()),
            None => Endpoint::Tcp(at.parse().unwrap()),
        };
        if let Endpoint::Tcp(address) = service.endpoint {
            service.address = address;
        }
        service
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = resident.and_then(|line| line.split_whitespace().next());
        number.unwrap().parse().unwrap()
    }

    /// How many descriptors it has open: each connection is one.
    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The service's own listening TCP socket.
    pub fn listening_socket(&self) -> OwnedFd {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        entries
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
            .find(|socket| {
                let name = getsockname(socket).ok();
                let name = name.and_then(|name| SocketAddr::try_from(name).ok());
                name == Some(self.address) && getpeername(socket).is_err()
            })
            .expect("it listens")
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line of the log that contains this text. Returns the first such line.
    pub fn wait_for_line(&self, part: &str) -> String {
        let what = || format!("a line with {part:?} in {:#?}", self.log());
        eventually(what, || self.log().into_iter().find(|line| line.contains(part)))
    }

    pub fn wait_until_ready(&self) {
        self.wait_for_line("INFO  ready");
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end. Returns the exit status, `None` after a signal.
    pub fn wait(&mut self) -> Option<i32> {
        eventually(|| "the service ends", || self.child.try_wait().unwrap()).code()
    }

    /// Stops the service with SIGTERM. Returns the exit status.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("-TERM");
        self.wait()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            eprintln!("its last lines: {:#?}", &log[log.len().saturating_sub(10)..]);
        }
    }
}
