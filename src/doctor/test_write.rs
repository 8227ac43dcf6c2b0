//! Test writes of a lease and of a record of a message, which are rolled back. A table can look right,
//! and a condition, a trigger or a generated column can still refuse what is written, or change it.
//!
//! Only `check` does this, and its findings are warnings: what is refused for a made-up session with
//! the id 0 may be accepted for the bot's sessions.

use super::Verdict::{Good, Warning};
use super::{Finding, Messages, found};
use crate::db::{Connection, ErrorKind, Packet, PacketError, Statement, Table, Value, cause};
use crate::lease::{self, OwnerToken, TTL_DEFAULT_MS, Ttl};

const LEASE: [&str; 3] = [
    include_str!("../../sql/lease/acquire.sql"),
    include_str!("../../sql/lease/renew.sql"),
    include_str!("../../sql/lease/release.sql"),
];

const RECORD: [&str; 2] = [
    include_str!("../../sql/check/write_record.sql"),
    include_str!("../../sql/message/forget.sql"),
];

/// The findings about this lock table and, if it takes records, the message table.
pub fn try_writes(db: &mut Connection, table: &Table, messages: &Messages) -> Vec<Finding> {
    let mut all = match write(db, table, &LEASE) {
        Ok(()) => found(Good, "test write", "a lease can be acquired, renewed and released", None),
        Err(why) => refused("lease", &why, "no lease is granted"),
    };
    if *messages == Messages::Usable
        && let Err(why) = write(db, table, &RECORD)
    {
        all.extend(refused("record", &why, "no message is recorded"));
    }
    all
}

fn refused(what: &str, why: &str, then: &str) -> Vec<Finding> {
    let text = format!(
        "a made-up session's {what} was refused ({why}): if those of the bot's sessions are refused too, {then}"
    );
    found(Warning, "test write", &text, None)
}

/// Runs statements that write a row and then delete it, and rolls them back. The error says why the
/// row could not be written, or not be deleted because something had changed it.
fn write(db: &mut Connection, table: &Table, files: &[&str]) -> Result<(), String> {
    let owner_token = OwnerToken::draw();
    // Digits, as in phone numbers: a column may be computed from them.
    let number = OwnerToken::draw();
    let id = &number.secret()[..12];
    let ttl = Ttl::default_within(TTL_DEFAULT_MS);
    let claim = lease::claim(ttl, &owner_token);
    let shift_us = Value::Signed(lease::date_shift_us(ttl.as_ms()));
    let values = [
        ("id_prospect", Value::Text(id)),
        ("id_device", Value::Text(id)),
        ("owner_token", Value::Bytes(owner_token.secret().as_bytes())),
        ("message_id", Value::Bytes(owner_token.secret().as_bytes())),
        ("committed_us", Value::Number(0)),
        // Hardly any table has a row with this id, and it does not raise the AUTO_INCREMENT counter.
        ("key", Value::Number(0)),
        ("claim", Value::Bytes(claim.as_bytes())),
        ("mark", Value::Text(lease::claim_mark())),
        ("stored", Value::Null),
        ("shift_us", shift_us),
        ("max_shift_us", shift_us),
        ("max_hold_us", Value::Number(ttl.as_ms() * 1_000)),
        ("rows", Value::Number(1)),
    ];
    let mut packet = Packet::default();
    packet.push(include_str!("../../sql/check/allow_id_0.sql"));
    packet.push("START TRANSACTION");
    for file in files.iter().chain([&include_str!("../../sql/lease/all_released.sql")]) {
        Statement::new(file, &table.names()).write(&mut packet, &values);
    }
    packet.push("ROLLBACK");
    let Err(PacketError { error, .. }) = db.run(&packet) else { return Ok(()) };
    // The next START TRANSACTION would commit what is still open. If the connection is lost, nothing
    // is.
    let _ = db.rollback();
    let cause = cause(&error);
    Err(match ErrorKind::of(&error) {
        ErrorKind::GuardFailed => format!(
            "what was written is not in its row: a trigger has changed it, or another row has the id 0; {cause}"
        ),
        _ => cause,
    })
}
