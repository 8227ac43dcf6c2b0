//! The simulated table of the model (`tests/model`) behaves like a database: random sequences of
//! packets with the product's own statements run on both, and the rows, records and counts are
//! compared.
//!
//! All rows are aged to let time pass. Not covered: locks, because there is one connection; forced
//! releases; the writes of old programs. `SEED` in the environment chooses the sequences.

#[allow(dead_code)]
#[path = "../../model/content.rs"]
mod content;
#[allow(dead_code)]
#[path = "../../model/sql.rs"]
mod sql;
#[allow(dead_code)]
#[path = "../../model/statements.rs"]
mod statements;
#[allow(dead_code)]
#[path = "../../model/table.rs"]
mod table;

use std::fmt::Write;
use std::time::Instant;

use content::Content;
use mysql::prelude::Queryable;
use session_lock::testing::{
    Acquire, Attempt, Commit, FirstPacket, Id, Message, MessageId, Operation, OwnerToken, Release,
    Renew, Row, Session, Snapshot, TokenOrigin, Ttl,
};
use table::{Conn, Outcome, Rules, Table};

use crate::world::{MESSAGE_TABLE, TABLE, World, tests};

tests![the_simulated_table_does_what_the_database_does];

const SEQUENCES: usize = 300;
const STEPS: usize = 6;
const TTL_MS: u64 = 60_000;
/// Longer than a lease lasts.
const AGE_S: u64 = 3_600;
/// A renew counts 1 only if the date changes, which has whole seconds. The result must not depend
/// on the real clock.
const STEP_S: u64 = 2;
const RULES: Rules = Rules { dropped: None, step_us: 1_000, old_ahead_s: 0 };

/// Session, owner, whether it is live.
type RowSeen = (u8, u8, bool);
/// Session, message, owner.
type RecordSeen = (u8, u8, u8);

fn the_simulated_table_does_what_the_database_does(world: &World) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let schema = world.own_table();
    let mut real = schema.connect();
    real.query_drop("SET time_zone = '+00:00'").unwrap();
    real.query_drop(format!("RENAME TABLE {TABLE} TO {}", sql::TABLE)).unwrap();
    let statements = session_lock::testing::statements(sql::TABLE);
    for number in 0..SEQUENCES {
        real.query_drop(format!("DELETE FROM {}", sql::TABLE)).unwrap();
        real.query_drop(format!("DELETE FROM {MESSAGE_TABLE}")).unwrap();
        let mut simulated = Table { now_us: 1_760_000_000_000_000, ..Table::default() };
        let mut story = format!("SEED={seed}, sequence {number}:\n");
        for _ in 0..STEPS {
            let seconds = if random.u8(..5) == 0 { AGE_S } else { STEP_S };
            writeln!(story, "{seconds} s later:").unwrap();
            age(&mut real, &mut simulated, seconds);
            let operations = random_operations(&mut random);
            writeln!(story, "{operations:?}").unwrap();
            let real_text =
                packet(&statements, &operations, |session| read_real(&mut real, session));
            let simulated_text =
                packet(&statements, &operations, |session| read_simulated(&simulated, session));
            let counts =
                (run_real(&mut real, &real_text), run_simulated(&mut simulated, &simulated_text));
            assert_eq!(counts.0, counts.1, "the database's and the simulated counts; {story}");
            assert_eq!(seen_real(&mut real), seen_simulated(&simulated), "{story}");
        }
    }
}

/// One operation, or two of different sessions.
fn random_operations(random: &mut fastrand::Rng) -> Vec<Operation> {
    let first = random.u8(..2);
    let sessions = if random.bool() { vec![first] } else { vec![first, 1 - first] };
    let kind = random.bool().then(|| random.u8(..6));
    sessions
        .into_iter()
        .map(|session| {
            let kind = kind.unwrap_or_else(|| random.u8(..6));
            operation(kind, session, random.u8(1..3), random.u8(1..3))
        })
        .collect()
}

fn operation(kind: u8, session: u8, owner: u8, message: u8) -> Operation {
    let id = |text: &str| Id::new(text).unwrap();
    let session = Session { id_device: id("d"), id_prospect: id(&format!("p{session}")) };
    let owner_token = OwnerToken::new(&format!("{owner:020}")).unwrap();
    let id = MessageId::new(&format!("m{message}")).unwrap();
    let ttl = Ttl::new(TTL_MS, u64::MAX).unwrap();
    let message = Message { id: id.clone(), result: None };
    match kind {
        0..=2 => {
            let message_id = (kind > 0).then_some(id);
            let origin =
                if owner.is_multiple_of(2) { TokenOrigin::Ours } else { TokenOrigin::Callers };
            let acquire = Acquire { session, owner_token, origin, ttl, message_id };
            let first = if kind == 1 { FirstPacket::Write } else { FirstPacket::Read };
            Operation::Acquire(acquire, first)
        }
        3 => Operation::Renew(Renew { session, owner_token, ttl, max_hold_ms: 86_400_000 }),
        4 => Operation::Commit(Commit { session, owner_token, message }),
        _ => {
            let message = (message.id.as_str() == "m1").then_some(message);
            Operation::Release(Release { session, owner_token, message })
        }
    }
}

/// The packet that the product sends for these operations, after a read of the row for operations
/// that begin with a read. Empty if the read is their answer.
fn packet(
    statements: &session_lock::testing::Statements,
    operations: &[Operation],
    mut read: impl FnMut(u8) -> Option<Row>,
) -> String {
    let mut attempts: Vec<_> = operations.iter().map(Attempt::new).collect();
    for (attempt, operation) in attempts.iter_mut().zip(operations) {
        if attempt.is_reading() {
            let session = operation.session().id_prospect.as_str()[1..].parse().unwrap();
            let read = Snapshot { row: read(session), ..Snapshot::default() };
            attempt.after_read(read, Instant::now());
        }
    }
    let open: Vec<_> = attempts.iter_mut().filter(|attempt| attempt.is_writing()).collect();
    if open.is_empty() {
        return String::new();
    }
    statements.write_packet(&open).0.text().to_owned()
}

/// The affected rows of each statement; `None` for one that fails.
fn run_real(real: &mut mysql::Conn, text: &str) -> Vec<Option<u64>> {
    let mut counts = vec![];
    for statement in text.split(';').filter(|statement| !statement.is_empty()) {
        // Reads all rows, because an error may replace the first row.
        let Err(error) = real.query::<mysql::Row, _>(statement) else {
            counts.push(Some(real.affected_rows()));
            continue;
        };
        assert!(error.to_string().contains("1690"), "{error}: {statement}");
        real.query_drop("ROLLBACK").unwrap();
        counts.push(None);
        break;
    }
    counts
}

fn run_simulated(table: &mut Table, text: &str) -> Vec<Option<u64>> {
    let (mut counts, mut conn) = (vec![], Conn::default());
    for statement in if text.is_empty() { vec![] } else { sql::parse(text) } {
        match table.run(&statement, &mut conn, &[], RULES) {
            Outcome::Done(reply) => counts.push(Some(reply.affected)),
            Outcome::NotAllReleased => {
                Table::roll_back(&mut conn);
                counts.push(None);
                break;
            }
            other => panic!("{other:?}: {statement:?}"),
        }
        if statement == sql::Stmt::Commit || !conn.is_open {
            table.commit(&mut conn);
        }
    }
    counts
}

fn age(real: &mut mysql::Conn, simulated: &mut Table, seconds: u64) {
    let table = sql::TABLE;
    real.query_drop(format!(
        "UPDATE {table} SET timestamp = CONCAT(LEFT(LEFT(timestamp, 19) - INTERVAL {seconds} SECOND, 19), \
         SUBSTRING(timestamp, 20))"
    ))
    .unwrap();
    for row in &mut simulated.rows {
        if let Content::Lease { date_s, .. } = &mut row.content {
            *date_s -= seconds;
        }
    }
}

fn read_real(real: &mut mysql::Conn, session: u8) -> Option<Row> {
    let row: Option<(i64, Vec<u8>, Option<i64>, u64)> = real
        .query_first(format!(
            "SELECT id_sessionX, CAST(timestamp AS BINARY), TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)), \
             CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED) \
             FROM {} WHERE id_prospect = 'p{session}'",
            sql::TABLE
        ))
        .unwrap();
    row.map(|(key, stored, age_us, clock_us)| Row::new(key, stored, age_us, clock_us))
}

fn read_simulated(table: &Table, session: u8) -> Option<Row> {
    let row = table.row(session)?;
    let date_us = row.content.date_us()?.cast_signed();
    let age_us = table.now_us.cast_signed() - date_us;
    Some(Row::new(row.key, row.content.text().into_bytes(), Some(age_us), table.now_us))
}

fn seen_real(real: &mut mysql::Conn) -> (Vec<RowSeen>, Vec<RecordSeen>) {
    let rows = real.query(format!(
        "SELECT CAST(SUBSTRING(id_prospect, 2) AS UNSIGNED), CAST(RIGHT(timestamp, 20) AS UNSIGNED), \
         CAST(timestamp AS BINARY) > CAST(SYSDATE(6) - INTERVAL 30 SECOND AS BINARY) \
         FROM {} ORDER BY 1",
        sql::TABLE
    ));
    let records = real.query(format!(
        "SELECT CAST(SUBSTRING(id_prospect, 2) AS UNSIGNED), CAST(SUBSTRING(message_id, 2) AS UNSIGNED), \
         CAST(owner_token AS UNSIGNED) FROM {MESSAGE_TABLE} ORDER BY 1, 2"
    ));
    (rows.unwrap(), records.unwrap())
}

fn seen_simulated(table: &Table) -> (Vec<RowSeen>, Vec<RecordSeen>) {
    let rows = table.rows.iter().map(|row| {
        let owner = row.content.owner().expect("all rows are leases");
        (row.session, owner, row.content.is_live(table.now_us))
    });
    let records = table.records.iter();
    let records = records.map(|record| (record.session, record.message, record.owner));
    (rows.collect(), records.collect())
}
