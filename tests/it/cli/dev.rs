//! `session-lock dev`: a newcomer's first minute.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::world::{binary, eventually};

pub const TESTS: [(&str, fn()); 2] = [
    (
        "dev_serves_what_its_curl_lines_ask_and_cleans_up_on_ctrl_c",
        dev_serves_what_its_curl_lines_ask_and_cleans_up_on_ctrl_c,
    ),
    (
        "dev_leaves_no_database_behind_when_it_is_killed",
        dev_leaves_no_database_behind_when_it_is_killed,
    ),
];

/// Ends with its test, whatever becomes of that.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Dev {
    child: Running,
    /// Kept open: it may have more to say.
    _output: BufReader<ChildStdout>,
    curls: Vec<String>,
    database_folder: String,
}

impl Dev {
    fn start() -> Self {
        let mut dev = Command::new(binary());
        let dev = dev.arg("dev").env("SESSION_LOCK_LISTEN", "127.0.0.1:0").stdin(Stdio::null());
        let child = dev.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut child = Running(child);
        let mut output = BufReader::new(child.0.stdout.take().unwrap());
        let lines = output.by_ref().lines().map_while(Result::ok);
        let curls: Vec<_> = lines.filter(|line| line.starts_with("curl ")).take(3).collect();
        assert_eq!(curls.len(), 3, "{curls:?}");
        let (_, keeper) = keeper_of(child.0.id()).expect("dev has a database");
        let database_folder =
            keeper.split('\0').find(|word| word.contains("/session-lock-")).unwrap().to_owned();
        assert!(Path::new(&database_folder).join("socket").exists());
        Self { child, _output: output, curls, database_folder }
    }

    fn assert_gone(mut self) {
        eventually(|| "dev ends", || self.child.0.try_wait().unwrap());
        let folder = self.database_folder.clone();
        eventually(|| format!("{folder} is gone"), || (!Path::new(&folder).exists()).then_some(()));
        let runs_there = |_: &u32, command: &str| command.contains(&folder);
        eventually(|| "the database is gone", || find_process(runs_there).is_none().then_some(()));
    }
}

fn keeper_of(parent: u32) -> Option<(u32, String)> {
    find_process(|pid, _| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{parent}"))
    })
}

fn find_process(wanted: impl Fn(&u32, &str) -> bool) -> Option<(u32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        Some((pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?))
    })
    .find(|(pid, command)| wanted(pid, command))
}

fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn dev_serves_what_its_curl_lines_ask_and_cleans_up_on_ctrl_c() {
    let dev = Dev::start();
    let granted = eventually(
        || "the first curl is answered",
        || Some(sh(&dev.curls[0])).filter(|text| text.contains("granted")),
    );
    let granted: serde_json::Value = serde_json::from_str(&granted).unwrap();
    assert_eq!(granted["granted"], true, "{granted}");
    let refused = sh(&dev.curls[1]);
    assert!(refused.contains("\"reason\":\"held\""), "{refused}");
    assert_eq!(sh(&dev.curls[2]), "{\"released\":true}\n");
    assert!(
        Command::new("kill")
            .args(["-INT", &dev.child.0.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    dev.assert_gone();
}

fn dev_leaves_no_database_behind_when_it_is_killed() {
    let mut dev = Dev::start();
    dev.child.0.kill().unwrap();
    dev.assert_gone();
}
