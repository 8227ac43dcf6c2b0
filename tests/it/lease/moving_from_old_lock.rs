//! Moving from the old lock: old and new workers side by side on one table, switched one by one,
//! there and back, under load.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Done, Session, TABLE, World, tests, write};

tests![moving_there_and_back_under_load];

const WORKERS: usize = 8;
const SESSIONS: usize = 4;
const PHASE: Duration = Duration::from_millis(1_500);
/// What an old worker began before a switch is over after this.
const SETTLED: Duration = Duration::from_secs(1);
const WORK: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Tally {
    old_turns: AtomicU64,
    our_turns: AtomicU64,
    /// Leases that were lost to an old worker, by the switch position at the time of the grant.
    lost: [AtomicU64; WORKERS + 1],
    /// When which session was ours, by leases that were released rightly.
    ours: Mutex<Vec<(usize, Instant, Instant)>>,
}

/// The old program's turn: it checks, writes, works, deletes.
fn old_turn(conn: &mut mysql::Conn, session: &Session) -> bool {
    let age =
        format!("SELECT TIMESTAMPDIFF(SECOND, timestamp, NOW()) FROM {TABLE} WHERE {session}");
    let age: Option<Option<i64>> = conn.query_first(age).unwrap();
    if age.flatten().is_some_and(|age_s| age_s < 30) {
        return false;
    }
    let Session { device, prospect } = session;
    write(
        conn,
        &format!(
            "INSERT INTO {TABLE} (id_prospect, id_device, timestamp) VALUES ('{prospect}', '{device}', NOW()) \
         ON DUPLICATE KEY UPDATE timestamp = VALUES(timestamp)"
        ),
    );
    thread::sleep(WORK);
    write(conn, &format!("DELETE FROM {TABLE} WHERE {session}"));
    true
}

fn moving_there_and_back_under_load(world: &World) {
    // A database of its own: an old program's upsert locks its neighbours in MySQL's index.
    let own = World::start(world.engine);
    let sessions: Vec<_> = (0..SESSIONS).map(|_| Session::new()).collect();
    let (switched, stopping) = (AtomicUsize::new(0), AtomicBool::new(false));
    let tally = Arc::new(Tally::default());
    thread::scope(|scope| {
        let _done = Done(&stopping);
        for worker in 0..WORKERS {
            let (own, sessions, switched, stopping, tally) =
                (&own, &sessions, &switched, &stopping, Arc::clone(&tally));
            scope.spawn(move || {
                let mut conn = own.database.connect();
                for turn in worker.. {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    let which = turn % SESSIONS;
                    let session = &sessions[which];
                    let position = switched.load(Ordering::Relaxed);
                    if worker >= position {
                        tally
                            .old_turns
                            .fetch_add(u64::from(old_turn(&mut conn, session)), Ordering::Relaxed);
                        continue;
                    }
                    let granted = own.service.acquire(session, json!({}));
                    let began = Instant::now();
                    if granted.status != 200 {
                        assert_eq!(granted.status, 409, "{granted:?}");
                        continue;
                    }
                    thread::sleep(WORK);
                    let ended = Instant::now();
                    let released = own.service.release(session, &granted.text("owner_token"));
                    match released.status {
                        200 => tally.ours.lock().unwrap().push((which, began, ended)),
                        409 => drop(tally.lost[position].fetch_add(1, Ordering::Relaxed)),
                        _ => panic!("{released:?}"),
                    }
                    tally.our_turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let turns =
            || (tally.old_turns.load(Ordering::Relaxed), tally.our_turns.load(Ordering::Relaxed));
        for position in [0, WORKERS / 2, WORKERS, WORKERS / 2, 0] {
            switched.store(position, Ordering::Relaxed);
            thread::sleep(SETTLED);
            let (before, lost) = (turns(), tally.lost[WORKERS].load(Ordering::Relaxed));
            thread::sleep(PHASE);
            let after = turns();
            if position < WORKERS {
                assert!(after.0 > before.0, "old workers go on at {position}");
            }
            if position > 0 {
                assert!(after.1 > before.1, "new workers go on at {position}");
            }
            if position == WORKERS {
                assert_eq!(
                    tally.lost[WORKERS].load(Ordering::Relaxed),
                    lost,
                    "alone, nobody loses a lease"
                );
            }
        }
    });
    let mut ours = tally.ours.lock().unwrap();
    ours.sort_unstable();
    for pair in ours.windows(2) {
        let [(first, _, ended), (second, began, _)] = pair else { unreachable!() };
        assert!(first != second || began >= ended, "two of ours at once: {pair:?}");
    }
    assert_eq!(own.rows::<u64>(&format!("SELECT COUNT(*) FROM {TABLE}")), [0], "it is as it was");
}
