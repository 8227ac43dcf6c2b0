//! Log lines on standard error. Those of one batch go there in one write: each write wakes whoever
//! reads them, and with a line for each request that took a tenth of the service's time.

use std::cell::RefCell;
use std::io::{self, Write};

thread_local! {
    /// The lines of this thread that are not written yet, while they are held together.
    static HELD: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Where lines are written to.
pub struct Journal;

impl Write for Journal {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        HELD.with_borrow_mut(|held| match held {
            Some(lines) => lines.write(line),
            None => io::stderr().write(line),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What this thread logs while it lives is written at its end, at once.
pub struct Together(());

impl Together {
    /// Begins to hold lines back.
    pub fn begin() -> Self {
        HELD.set(Some(Vec::new()));
        Self(())
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        let lines = HELD.take().unwrap_or_default();
        // As with any line: if nobody reads them, the service goes on.
        let _ = io::stderr().write_all(&lines);
    }
}
