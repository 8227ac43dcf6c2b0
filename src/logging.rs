//! Log lines on standard error. The lines of one batch of operations are written together: one
//! write per line wakes the reader each time, and took a tenth of the service's time.

use std::cell::RefCell;
use std::io::{self, Write};

use env_logger::{Builder, Target};
use log::LevelFilter;

thread_local! {
    /// The lines of this thread's batch, while there is one.
    static BATCH: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Starts logging, at the level of `RUST_LOG` or `info`, and logs panics as bugs.
///
/// # Errors
/// Fails if `RUST_LOG` is not a level.
pub fn init() -> Result<(), String> {
    let level = std::env::var_os("RUST_LOG").unwrap_or_default();
    let level = match level.to_string_lossy() {
        level if level.is_empty() => LevelFilter::Info,
        level => level
            .parse()
            .map_err(|_| format!("RUST_LOG must be error, warn, info or debug, not {level:?}"))?,
    };
    Builder::new()
        .filter_level(level)
        .target(Target::Pipe(Box::new(Output)))
        // The service itself reports the errors of tiny_http, with the remedy.
        .filter_module("tiny_http", LevelFilter::Off)
        .format(|line, record| writeln!(line, "{:<5} {}", record.level(), record.args()))
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let is_in = |folder| panic.location().is_some_and(|at| at.file().contains(folder));
        // A client that resets its connection at once makes tiny_http panic, without harm.
        if is_in("/tiny_http") {
            return log::debug!("a bug in tiny_http: {panic}");
        }
        let whose = if is_in("/mysql") { "the database driver" } else { "session-lock" };
        log::error!("a bug in {whose}: {panic}");
    }));
    Ok(())
}

struct Output;

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BATCH.with_borrow_mut(|batch| match batch {
            Some(lines) => lines.write(line),
            None => io::stderr().write(line),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Holds back this thread's lines, and writes them together when it is dropped.
pub struct Batch(());

impl Batch {
    pub fn begin() -> Self {
        BATCH.set(Some(Vec::new()));
        Self(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let lines = BATCH.take().unwrap_or_default();
        // If standard error is closed, the service continues without a log.
        let _ = io::stderr().write_all(&lines);
    }
}
