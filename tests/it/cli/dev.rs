//! `session-lock dev`: the service on a private database.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::world::{KillOnDrop, Test, binary, eventually, signal, tests};

tests![
    as Test<fn()>;
    dev_serves_what_its_curl_lines_ask_and_cleans_up_on_ctrl_c,
    dev_leaves_no_database_behind_when_it_is_killed,
];

struct Dev {
    child: KillOnDrop,
    /// Keep it open, because `dev` may print more.
    _output: BufReader<ChildStdout>,
    curls: Vec<String>,
    database_folder: String,
}

impl Dev {
    fn start() -> Self {
        let mut dev = Command::new(binary());
        let dev = dev.arg("dev").env("SESSION_LOCK_LISTEN", "127.0.0.1:0").stdin(Stdio::null());
        let child = dev.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut child = KillOnDrop(child);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let lines = output.by_ref().lines().map_while(Result::ok);
        let curls: Vec<_> = lines.filter(|line| line.starts_with("curl ")).take(3).collect();
        assert_eq!(curls.len(), 3, "{curls:?}");
        let keeper = child_of(child.id()).expect("dev has a database");
        let database_folder =
            keeper.split('\0').find(|word| word.contains("/session-lock-")).unwrap().to_owned();
        assert!(Path::new(&database_folder).join("socket").exists());
        Self { child, _output: output, curls, database_folder }
    }

    fn assert_gone(mut self) {
        eventually(|| "dev ends", || self.child.try_wait().unwrap());
        let folder = self.database_folder.clone();
        eventually(|| format!("{folder} is gone"), || (!Path::new(&folder).exists()).then_some(()));
        let is_there = |_, command: &str| command.contains(&folder);
        eventually(|| "the database is gone", || find_process(is_there).is_none().then_some(()));
    }
}

/// The command line of a process's child: the keeper of the database, which knows its folder.
fn child_of(parent: u32) -> Option<String> {
    find_process(|pid, _| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{parent}"))
    })
}

/// The command line of the first process that matches.
fn find_process(wanted: impl Fn(u32, &str) -> bool) -> Option<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find_map(|pid| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        wanted(pid, &command).then_some(command)
    })
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
    let granted: Value = serde_json::from_str(&granted).unwrap();
    assert_eq!(granted["granted"], true, "{granted}");
    let refused = sh(&dev.curls[1]);
    assert!(refused.contains("\"reason\":\"held\""), "{refused}");
    assert_eq!(sh(&dev.curls[2]), "{\"released\":true}\n");
    signal(dev.child.id(), "-INT");
    dev.assert_gone();
}

fn dev_leaves_no_database_behind_when_it_is_killed() {
    let mut dev = Dev::start();
    dev.child.kill().unwrap();
    dev.assert_gone();
}
