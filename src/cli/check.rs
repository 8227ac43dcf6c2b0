//! `session-lock check`: reports what is right and what is wrong with the database.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::{Failure, config, exit_status, print, store};
use crate::doctor::{Finding, Report, Verdict};

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let (json, arguments): (Vec<_>, Vec<_>) =
        arguments.into_iter().partition(|argument| argument == "--json");
    let inspected = store(&config(arguments)?).check();
    let report = inspected.unwrap_or_else(|cause| Report::unreachable(&cause));
    if json.is_empty() {
        report.findings.iter().for_each(print);
    } else {
        print(report.findings.iter().map(as_json).collect::<Value>());
    }
    match report.of(Verdict::Problem).count() {
        0 => Ok(()),
        _ => Err(Failure { status: exit_status::FAILED, message: None }),
    }
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "verdict": finding.verdict.to_string(), "topic": finding.topic, "text": finding.text,
        "sql": finding.sql,
    })
}
