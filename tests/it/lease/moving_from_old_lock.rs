//! The move from the old lock: old and new workers on one table, switched one by one in both
//! directions, under load.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{Session, SetOnDrop, TABLE, World, old_program, tests};

tests![workers_move_from_the_old_lock_and_back_under_load];

const WORKERS: usize = 8;
const SESSIONS: usize = 4;

/// How long the workers run after each switch.
const PHASE: Duration = Duration::from_millis(1_500);

/// After this time, no old worker is in a turn that began before the switch.
const SETTLED: Duration = Duration::from_secs(1);

/// How long a worker holds a session.
const WORK: Duration = Duration::from_millis(2);

/// The workers with a number below `switched` use the service, the others the old lock.
struct Workers {
    world: World,
    sessions: [Session; SESSIONS],
    switched: AtomicUsize,
    stopping: AtomicBool,
    old_turns: AtomicU64,
    our_turns: AtomicU64,
    /// Leases that were lost to an old worker, by the value of `switched` at the time of the grant.
    lost: [AtomicU64; WORKERS + 1],
    /// For the released leases: the sessions, and when each was held.
    ours: Mutex<Vec<(usize, Instant, Instant)>>,
}

impl Workers {
    fn run(&self, worker: usize) {
        let mut conn = self.world.database.connect();
        for turn in worker.. {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            let switched = self.switched.load(Ordering::Relaxed);
            if worker >= switched {
                self.old_turn(&mut conn, turn % SESSIONS);
            } else {
                self.our_turn(turn % SESSIONS, switched);
            }
        }
    }

    fn old_turn(&self, conn: &mut mysql::Conn, number: usize) {
        let session = &self.sessions[number];
        if old_program::is_held(conn, session) {
            return;
        }
        old_program::upsert(conn, session, "NOW()");
        thread::sleep(WORK);
        old_program::delete(conn, session);
        self.old_turns.fetch_add(1, Ordering::Relaxed);
    }

    fn our_turn(&self, number: usize, switched: usize) {
        let (service, session) = (&self.world.service, &self.sessions[number]);
        let granted = service.acquire(session, json!({}));
        let began = Instant::now();
        if granted.status != 200 {
            assert_eq!(granted.status, 409, "{granted:?}");
            return;
        }
        thread::sleep(WORK);
        let ended = Instant::now();
        let released = service.release(session, &granted.text("owner_token"));
        match released.status {
            200 => self.ours.lock().unwrap().push((number, began, ended)),
            409 => drop(self.lost[switched].fetch_add(1, Ordering::Relaxed)),
            _ => panic!("{released:?}"),
        }
        self.our_turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Switches this many workers to the service, and checks that old and new ones continue to
    /// work.
    fn switch(&self, switched: usize) {
        let counts = || {
            [&self.old_turns, &self.our_turns, &self.lost[WORKERS]]
                .map(|counter| counter.load(Ordering::Relaxed))
        };
        self.switched.store(switched, Ordering::Relaxed);
        thread::sleep(SETTLED);
        let before = counts();
        thread::sleep(PHASE);
        let after = counts();
        if switched < WORKERS {
            assert!(after[0] > before[0], "old workers continue at {switched}");
        }
        if switched > 0 {
            assert!(after[1] > before[1], "new workers continue at {switched}");
        }
        if switched == WORKERS {
            assert_eq!(after[2], before[2], "without old workers, no lease is lost");
        }
    }
}

fn workers_move_from_the_old_lock_and_back_under_load(world: &World) {
    let workers = Workers {
        // On MySQL, an old program's upsert also locks the adjacent index entries.
        world: World::start(world.engine),
        sessions: [(); SESSIONS].map(|()| Session::new()),
        switched: 0.into(),
        stopping: false.into(),
        old_turns: 0.into(),
        our_turns: 0.into(),
        lost: [(); WORKERS + 1].map(|()| 0.into()),
        ours: Mutex::default(),
    };
    thread::scope(|scope| {
        let _stopping = SetOnDrop(&workers.stopping);
        let workers = &workers;
        for worker in 0..WORKERS {
            scope.spawn(move || workers.run(worker));
        }
        for switched in [0, WORKERS / 2, WORKERS, WORKERS / 2, 0] {
            workers.switch(switched);
        }
    });
    let mut ours = workers.ours.lock().unwrap();
    ours.sort_unstable();
    for pair in ours.windows(2) {
        let [(first, _, ended), (second, began, _)] = pair else { unreachable!() };
        assert!(first != second || began >= ended, "two of ours at once: {pair:?}");
    }
    let count = workers.world.rows::<u64>(format!("SELECT COUNT(*) FROM {TABLE}"));
    assert_eq!(count, [0], "the table is empty again");
}
