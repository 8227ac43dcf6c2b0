//! The server: its threads, from start to end.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::{debug, info, warn};
use mysql::Opts;
use parking_lot::Mutex;
use signal_hook::iterator::Signals;

use super::api_token::ApiToken;
use super::refusal_log::RefusalLog;
use super::routes::Router;
use super::shared::{Ending, Shared};
use crate::background::{Context, JOBS};
use crate::net::{Listen, Listener};
use crate::service::Service;
use crate::store::Store;
use crate::systemd;
use crate::tiny_http_faults::answer_order::Clients;
use crate::tiny_http_faults::blocked_writer::Writers;
use crate::tiny_http_faults::forgotten_connection::Traffic;
use crate::tiny_http_faults::late_body::Readers;

/// Connections for the start, the watch, the sweep and lists, in addition to one for each worker.
const SPARE_CONNECTIONS: usize = 4;

/// How long the service may take to answer its own check: as long as any other request.
pub const SELF_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between the steps of a shutdown.
const STOP_INTERVAL: Duration = Duration::from_millis(10);

/// The checked settings. It has no `Debug`, because it holds secrets.
pub struct Config {
    pub database: Opts,
    pub listen: Listen,
    /// The permissions of the socket file.
    pub socket_mode: u32,
    pub table: String,
    pub workers: usize,
    pub api_token: Option<ApiToken>,
    /// The page's address behind a proxy that replaces the `Host` header.
    pub origin: Option<String>,
    /// Longest hold of a lease, in milliseconds.
    pub max_hold_ms: u64,
    /// How long records of answered messages are kept, in milliseconds.
    pub message_retention_ms: u64,
    /// Offset of the database's clock from UTC, such as `+08:00`.
    pub time_zone: Option<String>,
}

/// A service that is bound to its address.
pub struct Server {
    http: tiny_http::Server,
    router: Router,
    listener: Listener,
    workers: usize,
    message_retention: Duration,
}

impl Server {
    /// Binds the address. Answers nothing yet.
    ///
    /// # Errors
    /// If the address cannot be bound, with the remedy.
    pub fn bind(config: &Config) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| {
            format!(
                "cannot listen on {}: {error}; SESSION_LOCK_LISTEN must be an address of this machine \
                 that no other program uses, such as another session-lock",
                config.listen
            )
        };
        let (listener, socket) =
            Listener::bind(&config.listen, config.socket_mode).map_err(|error| wrong(&error))?;
        if let Listen::Tcp(address) = &config.listen
            && !address.ip().is_loopback()
            && config.api_token.is_none()
        {
            warn!(
                "other machines may reach {address}, and any of them can acquire and force leases: set SESSION_LOCK_API_TOKEN"
            );
        }
        let http = tiny_http::Server::from_listener(socket, None).map_err(|error| wrong(&error))?;
        let connections = u32::try_from(config.workers + SPARE_CONNECTIONS).unwrap_or(u32::MAX);
        let store =
            Store::new(&config.database, &config.table, config.time_zone.as_deref(), connections);
        Ok(Self {
            http,
            router: Router {
                service: Service::new(store),
                max_hold_ms: config.max_hold_ms,
                api_token: config.api_token.clone(),
                origin: config.origin.clone(),
            },
            listener,
            workers: config.workers,
            message_retention: Duration::from_millis(config.message_retention_ms),
        })
    }

    /// The address, with the port that the system chose if none was named.
    pub fn address(&self) -> &Listen {
        self.listener.address()
    }

    /// Serves until one of these signals arrives or the service cannot continue.
    pub fn run(self, mut signals: Signals) -> Ending {
        let (lists, list_requests) = channel();
        let shared = Arc::new(Shared {
            http: self.http,
            router: self.router,
            listener: self.listener,
            stopping: AtomicBool::new(false),
            clients: Clients::default(),
            writers: Writers::default(),
            refusals: RefusalLog::default(),
            readers: Readers::default(),
            traffic: Traffic::default(),
            admitted: Mutex::default(),
            lists,
            receiving: Mutex::default(),
            is_woken: AtomicBool::new(false),
            ending: OnceLock::new(),
            signals: signals.handle(),
        });
        info!("listening on {}", shared.listener.address());
        shared.start_jobs(self.message_retention);
        let lister = shared.start("lister", move |shared| {
            // A `None` ends the thread.
            while let Ok(Some((request, arrived))) = list_requests.recv() {
                shared.serve(request, arrived);
            }
        });
        let carer = shared.start("connections", Shared::care_for_connections);
        if systemd::listens() {
            shared.start("reporter", |shared| shared.report());
        }
        let workers: Vec<_> = (1..=self.workers)
            .map(|number| shared.start(&format!("worker-{number}"), Shared::work))
            .collect();
        if signals.forever().next().is_some() {
            info!("stopping");
            shared.end(Ending::Stopped);
        }
        shared.stop(&workers, lister, carer)
    }
}

impl Shared {
    /// Starts a thread. If a bug ends the thread, the service ends: no other thread does its work,
    /// and the state that it left is unknown. `top -H` and panic messages show the name.
    fn start(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) -> JoinHandle<()> {
        let (shared, whose) = (Arc::clone(self), name.to_owned());
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| run(&shared))).is_err() {
                let text = format!("a bug ended the {whose}; a restart repairs its state");
                shared.end(Ending::Failed(text));
            }
        });
        started.expect("the system can start these few threads")
    }

    /// Starts the background jobs.
    fn start_jobs(self: &Arc<Self>, message_retention: Duration) {
        for job in &JOBS {
            self.start(job.name, move |shared| {
                let done = job.run(&Context {
                    service: &shared.router.service,
                    stopping: &shared.stopping,
                    wake: &|| shared.wake(),
                    message_retention,
                });
                if let Err(findings) = done {
                    shared.end(Ending::Unusable(findings));
                }
            });
        }
    }

    /// Stops the server after every accepted request is answered.
    fn stop(
        self: &Arc<Self>,
        workers: &[JoinHandle<()>],
        lister: JoinHandle<()>,
        carer: JoinHandle<()>,
    ) -> Ending {
        systemd::tell_stopping();
        self.listener.close();
        // By now, a connection that was being accepted has been accepted.
        thread::sleep(STOP_INTERVAL);
        self.listener.connections.shut_down_reading();
        self.stopping.store(true, Ordering::Relaxed);
        self.router.service.close();
        // A worker may take another worker's wake-up, so wake them until the last one has ended.
        while workers.iter().any(|worker| !worker.is_finished()) {
            self.http.unblock();
            thread::sleep(STOP_INTERVAL);
        }
        let _ = self.lists.send(None);
        let _ = lister.join();
        let _ = carer.join();
        // Refuse what has become ready since the last worker finished.
        self.router.service.close();
        loop {
            let Some((request, arrived)) = self.admitted.lock().pop_front() else {
                break;
            };
            self.serve(request, arrived);
        }
        self.writers.wait_until_below(1);
        self.ending.get().cloned().unwrap_or(Ending::Stopped)
    }

    /// Reports to systemd whether the service answers, as a client sees it.
    fn report(&self) {
        let answers = || match self.ask_healthz() {
            Ok(answer) => answer.starts_with("HTTP/1.1 200 "),
            Err(error) => {
                debug!("the service did not answer itself: {error}");
                false
            }
        };
        systemd::report(answers, &self.stopping);
    }

    fn ask_healthz(&self) -> io::Result<String> {
        let mut stream = self.listener.connect(SELF_CHECK_TIMEOUT)?;
        stream.write_all(
            b"GET /healthz HTTP/1.1\r\nHost: session-lock\r\nConnection: close\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
