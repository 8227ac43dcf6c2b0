//! Clients of the database itself.

use std::thread;
use std::time::Instant;

use mysql::Opts;
use mysql::prelude::Queryable;
use session_lock::testing::{
    Acquire, FirstPacket, Id, Locks, Opened, Operation, OwnerToken, Release, Session, Store,
    TTL_MAX_MS, TokenOrigin, Ttl,
};

use crate::TABLE;
use crate::measure::{Client, Measured, duration, next, prospect, summary, us_since};

/// Operations in one transaction of `raw`, and connections that run them.
const RAW_BATCH: usize = 64;
const RAW_CONNECTIONS: u32 = 2;

/// The old bot's own lock: it checks the row, upserts it, and finally deletes it.
pub fn old_program(url: &str) -> Client {
    let mut conn = mysql::Conn::new(Opts::from_url(url).unwrap()).unwrap();
    conn.query_drop("SET time_zone = '+00:00'").unwrap();
    Box::new(move |number| {
        let ids = (prospect(number), "bot1");
        let both = "WHERE id_prospect = ? AND id_device = ?";
        let check = format!("SELECT TIMESTAMPDIFF(SECOND, timestamp, NOW()) FROM {TABLE} {both}");
        let failed = |error: mysql::Error| error.to_string();
        let _: Option<Option<i64>> = conn.exec_first(&check, &ids).map_err(failed)?;
        let upsert = format!(
            "INSERT INTO {TABLE} (id_prospect, id_device, timestamp) VALUES (?, ?, NOW()) \
             ON DUPLICATE KEY UPDATE timestamp = VALUES(timestamp)"
        );
        conn.exec_drop(&upsert, &ids).map_err(failed)?;
        conn.exec_drop(format!("DELETE FROM {TABLE} {both}"), &ids).map_err(failed)
    })
}

/// The database's own locks, which end with their connection and write nothing.
pub fn get_lock(url: &str) -> Client {
    let mut conn = mysql::Conn::new(Opts::from_url(url).unwrap()).unwrap();
    Box::new(move |number| {
        let name = (format!("bot1/{}", prospect(number)),);
        for statement in ["SELECT GET_LOCK(?, 0)", "SELECT RELEASE_LOCK(?)"] {
            let done: Option<u8> =
                conn.exec_first(statement, &name).map_err(|error| error.to_string())?;
            if done != Some(1) {
                return Err(format!("{statement}: {done:?}"));
            }
        }
        Ok(())
    })
}

/// session-lock's statements without HTTP, in transactions of the best size.
pub fn raw(url: &str) -> Measured {
    let store = Store::new(&Opts::from_url(url).unwrap(), TABLE, None, RAW_CONNECTIONS);
    assert!(matches!(store.open(), Opened::Ready));
    let id = |text: &str| Id::new(text).unwrap();
    let until = Instant::now() + duration();
    let (mut times, mut errors) = (Vec::new(), 0);
    let began = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = (0..RAW_CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut times_us, mut errors) = (Vec::new(), 0_u64);
                    while Instant::now() < until {
                        let began = Instant::now();
                        let ttl = Ttl::new(30_000, TTL_MAX_MS).unwrap();
                        let leases: Vec<_> = (0..RAW_BATCH)
                            .map(|_| {
                                let (id_prospect, id_device) = (id(&prospect(next())), id("bot1"));
                                (Session { id_device, id_prospect }, OwnerToken::draw())
                            })
                            .collect();
                        let acquires: Vec<_> = leases
                            .iter()
                            .cloned()
                            .map(|(session, owner_token)| Acquire {
                                session,
                                owner_token,
                                origin: TokenOrigin::Ours,
                                ttl,
                                message_id: None,
                            })
                            .map(|acquire| Operation::Acquire(acquire, FirstPacket::Write))
                            .collect();
                        let releases: Vec<_> = leases
                            .into_iter()
                            .map(|(session, owner_token)| Release {
                                session,
                                owner_token,
                                message: None,
                            })
                            .map(Operation::Release)
                            .collect();
                        for operations in [acquires, releases] {
                            let answers = store.run(&operations, Locks::Wait);
                            errors += answers.iter().filter(|a| a.is_err()).count() as u64;
                        }
                        times_us.extend([us_since(began); RAW_BATCH]);
                    }
                    (times_us, errors)
                })
            })
            .collect();
        for connection in running {
            let (its_times, its_errors) = connection.join().unwrap();
            times.extend(its_times);
            errors += its_errors;
        }
    });
    summary(times, errors, began.elapsed())
}
