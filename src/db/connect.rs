//! Opens connections with the driver, which alone tries only the first address of a name, panics on
//! some packets of a server, and does not pause after a refusal.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql::DriverError::CouldNotConnect;
use mysql::{Conn, Opts, OptsBuilder};
use parking_lot::Mutex;
use r2d2::ManageConnection;
use r2d2_mysql::MySqlConnectionManager;

use super::error::ErrorKind;
use super::refusal::{HOST_BLOCKED, has_answered, text};

/// How long to wait until the database accepts a connection, at all addresses together. The
/// database runs on the bot's machine or in the same data centre. If it takes longer, it is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause after the first refusal. A brief cause, such as a restart that loads the users last,
/// costs no more than this.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause. After `max_connect_errors` failed handshakes in a row, 100 by default, a
/// server blocks the machine with all its programs. With this pause, 100 handshakes take more than
/// an hour. A success of any other program resets the count.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Opens connections with these options. Clones share their state.
#[derive(Clone)]
pub(super) struct Connector {
    options: Opts,
    shared: Arc<Shared>,
}

/// The state that the connectors of one database share.
#[derive(Default)]
struct Shared {
    /// The target that accepted the last connection.
    last: Mutex<Option<Target>>,
    pause: Mutex<Option<Pause>>,
    /// Whether any connection had a different number at the server than in its handshake.
    is_proxied: AtomicBool,
}

/// No attempt begins before this time.
struct Pause {
    until: Instant,
    length: Duration,
    error: mysql::Error,
}

/// The target of one call of the driver.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    /// The socket or the address of the URL.
    AsGiven,
    Address(IpAddr),
    /// All addresses of one family. With TLS, the driver compares the certificate with the name to
    /// which it connects, so it must be given the name. If it must also bind to any address of a
    /// family, it tries all addresses of that family.
    Family(IpAddr),
}

impl Connector {
    pub fn new(options: Opts) -> Self {
        Self { options, shared: Arc::default() }
    }

    /// A copy with this timeout for each read and write.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let options = OptsBuilder::from_opts(self.options.clone())
            .read_timeout(Some(timeout))
            .write_timeout(Some(timeout));
        let shared = Arc::clone(&self.shared);
        Self { options: options.into(), shared }
    }

    /// Connects and logs in. After a refusal, fails with the same error until a pause is over. The
    /// pause doubles each time.
    pub fn connect(&self) -> mysql::Result<Conn> {
        let pause = self.begin_attempt()?;
        let connected = self.try_targets();
        *self.shared.pause.lock() =
            connected.as_ref().err().filter(|error| is_refused(error)).map(|error| Pause {
                until: Instant::now() + pause,
                length: pause,
                error: copy(error),
            });
        connected
    }

    /// Begins an attempt, and keeps others from beginning for the length of the last pause. Returns
    /// the pause that follows if this attempt is refused too.
    fn begin_attempt(&self) -> mysql::Result<Duration> {
        let mut pause = self.shared.pause.lock();
        let Some(pause) = &mut *pause else { return Ok(FIRST_PAUSE) };
        let now = Instant::now();
        if now < pause.until {
            return Err(copy(&pause.error));
        }
        pause.until = now + pause.length;
        Ok(LONGEST_PAUSE.min(pause.length * 2))
    }

    /// Tries the targets that the URL names until one answers.
    fn try_targets(&self) -> mysql::Result<Conn> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        let (targets, addresses) = match self.targets() {
            Ok(targets) => targets,
            Err(error) => return Err(self.nothing_answered(&error.to_string(), error.kind())),
        };
        let mut failures = Vec::new();
        for target in targets {
            let error = match no_panic(|| self.try_target(target, addresses)) {
                Err(error) if !has_answered(&error) => error,
                answer => {
                    *self.shared.last.lock() = Some(target);
                    return answer;
                }
            };
            if target == Target::AsGiven {
                return Err(error);
            }
            failures.push(match (target, &error) {
                (
                    Target::Address(ip),
                    mysql::Error::DriverError(CouldNotConnect(Some((_, why, _)))),
                ) => {
                    format!("{ip}: {why}")
                }
                (Target::Address(ip), error) => format!("{ip}: {}", text(error)),
                (_, error) => text(error),
            });
            if Instant::now() >= until {
                break;
            }
        }
        Err(self.nothing_answered(&failures.join(", "), io::ErrorKind::Other))
    }

    fn nothing_answered(&self, why: &str, kind: io::ErrorKind) -> mysql::Error {
        let address =
            format!("{}:{}", self.options.get_ip_or_hostname(), self.options.get_tcp_port());
        mysql::Error::DriverError(CouldNotConnect(Some((address, why.to_owned(), kind))))
    }

    /// The targets, with the one that worked last first, and the number of their addresses.
    fn targets(&self) -> io::Result<(Vec<Target>, u32)> {
        let host = self.options.get_ip_or_hostname();
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if is_address || self.options.get_socket().is_some() {
            return Ok((vec![Target::AsGiven], 1));
        }
        let mut targets = Vec::new();
        let mut addresses = 0;
        for address in (&*host, self.options.get_tcp_port()).to_socket_addrs()? {
            addresses += 1;
            let target = match address.ip() {
                ip if self.options.get_ssl_opts().is_none() => Target::Address(ip),
                IpAddr::V4(_) => Target::Family(Ipv4Addr::UNSPECIFIED.into()),
                IpAddr::V6(_) => Target::Family(Ipv6Addr::UNSPECIFIED.into()),
            };
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        let last = *self.shared.last.lock();
        targets.sort_by_key(|target| Some(*target) != last);
        Ok((targets, addresses))
    }

    fn try_target(&self, target: Target, addresses: u32) -> mysql::Result<Conn> {
        let options = OptsBuilder::from_opts(self.options.clone())
            // For each address.
            .tcp_connect_timeout(Some(CONNECT_TIMEOUT / addresses));
        let options = match target {
            Target::AsGiven => options,
            Target::Address(ip) => options.ip_or_hostname(Some(ip.to_string())),
            Target::Family(any) => options.bind_address(Some(SocketAddr::new(any, 0))),
        };
        MySqlConnectionManager::new(options).connect()
    }

    /// The connection's number for `KILL`, if it is reliable. `handshake` is the number in the
    /// server's greeting, and `number` the result of `CONNECTION_ID()`. A proxy with its own
    /// connections to the server assigns its own numbers, which belong to other connections at the
    /// server.
    pub fn number_for_kill(&self, handshake: u32, number: u64) -> Option<u64> {
        // The handshake contains only the low 32 bits.
        if number & u64::from(u32::MAX) != u64::from(handshake) {
            self.shared.is_proxied.store(true, Ordering::Relaxed);
        }
        // Behind such a proxy, the two numbers may be equal by chance.
        (!self.shared.is_proxied.load(Ordering::Relaxed)).then_some(number)
    }
}

/// Runs a call of the driver, which panics on some packets of a server.
pub(super) fn no_panic<T>(call: impl FnOnce() -> mysql::Result<T>) -> mysql::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let text = "the database driver cannot read what the server sent";
        Err(io::Error::new(io::ErrorKind::InvalidData, text).into())
    })
}

/// Whether this side refused the server or its certificate, or the server refused the login. An
/// immediate retry would fail in the same way, and servers count such failures.
fn is_refused(error: &mysql::Error) -> bool {
    match error {
        mysql::Error::MySqlError(server) => {
            server.code == HOST_BLOCKED || ErrorKind::of(error) == ErrorKind::Denied
        }
        error => has_answered(error),
    }
}

/// A copy of an error, with the same text.
fn copy(error: &mysql::Error) -> mysql::Error {
    match error {
        mysql::Error::MySqlError(server) => server.clone().into(),
        mysql::Error::DriverError(driver) => driver.clone().into(),
        other => io::Error::new(io::ErrorKind::InvalidData, text(other)).into(),
    }
}
