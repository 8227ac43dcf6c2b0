//! Commands of the binary that end without a signal.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program under test: the one that cargo built, or `BINARY` in the environment.
pub fn binary() -> String {
    std::env::var("BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_session-lock").to_owned())
}

/// The output of a command of the binary, and its exit status.
#[derive(Debug)]
pub struct Printed {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Printed {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

pub fn run(arguments: &[&str]) -> Printed {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    output.into()
}

/// Runs `serve` on a database that it refuses, so that it ends.
pub fn run_serve(url: &str) -> Printed {
    run(&["serve", "--listen", "127.0.0.1:0", "--database-url", url])
}

pub fn run_check(url: &str) -> Printed {
    run(&["check", "--database-url", url])
}

/// Creates the tables.
#[track_caller]
pub fn migrate(url: &str) {
    let printed = run(&["migrate", "--database-url", url]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
}

/// Asserts that the text contains all of these parts.
#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in {text}");
}

/// Runs `openssl` in a folder.
pub fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let made = made.expect("openssl is installed: tests/install nginx");
    assert!(made.success(), "openssl {arguments}");
}
