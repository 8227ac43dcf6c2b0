//! `session-lock list`: lists the leases that are held.

use std::ffi::OsString;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::{ANSWER_TIMEOUT, Client, RequestError, connect};
use super::{Failure, print};
use crate::http::LIST_MAX;

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let (client, flags) = connect(arguments, &["device"], &["json"])?;
    let locks = fetch(&client, flags.get("device"))?;
    if flags.get("json").is_some() {
        print(Value::from(locks));
    } else {
        print_table(&locks);
    }
    Ok(())
}

/// Fetches all pages of the list.
fn fetch(client: &Client, device: Option<&str>) -> Result<Vec<Value>, RequestError> {
    let parameter = |name: &str, value: Option<&str>| match value {
        Some(value) => format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)),
        None => String::new(),
    };
    let path = format!("/v1/locks?limit={LIST_MAX}{}", parameter("id_device", device));
    let (mut locks, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}{after}"), ANSWER_TIMEOUT, "locks")?;
        locks.extend(page["locks"].as_array().cloned().unwrap_or_default());
        let next = page["next"].as_str();
        if next.is_none() {
            return Ok(locks);
        }
        after = parameter("after", next);
    }
}

fn print_table(locks: &[Value]) {
    print(format_args!(
        "{:<24} {:<20} {:>10} {:>12} {:>7}  FENCING TOKEN",
        "DEVICE", "PROSPECT", "HELD", "REMAINING", "WAITERS"
    ));
    let text = |id: &Value| id.as_str().unwrap_or_default().escape_debug().to_string();
    let seconds = |ms: &Value| {
        ms.as_u64().map_or("?".to_owned(), |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100))
    };
    for lock in locks {
        let fencing_token = lock["fencing_token"].as_u64();
        print(format_args!(
            "{:<24} {:<20} {:>10} {:>12} {:>7}  {}",
            text(&lock["id_device"]),
            text(&lock["id_prospect"]),
            seconds(&lock["held_ms"]),
            seconds(&lock["remaining_ms"]),
            lock["waiters"].to_string(),
            fencing_token.map_or("(old program)".to_owned(), |number| number.to_string()),
        ));
    }
}
