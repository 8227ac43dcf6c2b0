//! Rows of the lock table: reads, stores, ages and locks them without the service.

use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;

use super::{MESSAGE_TABLE, Reply, Service, Session, TABLE, World, eventually};

impl World {
    /// The stored timestamp of a session's row.
    pub fn stored(&self, session: &Session) -> Option<String> {
        self.rows(format!("SELECT timestamp FROM {TABLE} WHERE {session}")).pop()
    }

    /// Inserts a session's row, as another program does.
    pub fn store(&self, session: &Session, timestamp: &str) {
        insert(&mut self.database.connect(), session, timestamp);
    }

    /// Lets time pass for one session: moves its row's date into the past.
    pub fn age(&self, session: &Session, seconds: u64) {
        age(&mut self.database.connect(), session, seconds);
    }

    /// Replaces a lease's fencing token, which says when it was granted: a microsecond of the
    /// database's clock.
    pub fn set_fencing_token(&self, session: &Session, granted_us: u64) {
        self.sql(format!(
            "UPDATE {TABLE} SET timestamp = INSERT(timestamp, 27, 16, '{granted_us}') WHERE {session}"
        ));
    }

    /// How long after this microsecond a session's lease expires, in microseconds.
    pub fn lasts_us(&self, session: &Session, granted_us: u64) -> i64 {
        let lasts_us = self.rows(format!(
            "SELECT TIMESTAMPDIFF(MICROSECOND, FROM_UNIXTIME({granted_us} / 1000000), timestamp) + 30000000 \
             FROM {TABLE} WHERE {session}"
        ));
        lasts_us[0]
    }

    /// How many answered messages of a session are recorded.
    pub fn records(&self, session: &Session) -> u64 {
        self.rows(format!("SELECT COUNT(*) FROM {MESSAGE_TABLE} WHERE {session}"))[0]
    }

    /// Another program, which holds the row's lock until its `ROLLBACK`.
    pub fn lock_row(&self, session: &Session) -> mysql::Conn {
        // A request that waits for this row also locks the gap before it. Another row makes this
        // gap too small for the rows of other tests.
        let before = format!(
            "INSERT IGNORE INTO {TABLE} (id_prospect, id_device, timestamp) VALUES ('{}', '!', '')",
            session.prospect
        );
        let mut other_program = self.database.connect();
        other_program.query_drop(before).unwrap();
        // At the default level, this program would lock the gap itself.
        let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        other_program.query_drop(isolation).unwrap();
        other_program.query_drop("START TRANSACTION").unwrap();
        // Without the index, the database may scan, and lock, rows of other tests.
        let index = "FORCE INDEX (uniq_session)";
        let sql = format!("SELECT * FROM {TABLE} {index} WHERE {session} FOR UPDATE");
        other_program.query_drop(sql).unwrap();
        other_program
    }

    /// Another program, which has inserted the session's row and may still roll back.
    pub fn insert_row(&self, session: &Session) -> mysql::Conn {
        let mut other_program = self.database.connect();
        other_program.query_drop("START TRANSACTION").unwrap();
        insert(&mut other_program, session, "");
        other_program
    }

    /// Waits until a service's write of this session's row has reached the database, where it waits
    /// for a lock.
    pub fn wait_for_write(&self, session: &Session) {
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist \
                       WHERE info REGEXP '^ *(INSERT INTO|DELETE)' \
                       AND info LIKE CONCAT('%', ?, '%')";
        let mut conn = self.database.connect();
        eventually(
            || format!("a write of {session}"),
            || {
                // MySQL cannot show this list while any statement contains an emoji.
                let count = conn.exec_first::<u64, _, _>(waiting, (&session.prospect,));
                count.ok().flatten().filter(|count| *count > 0)
            },
        );
    }

    /// Whether the database reports a statement that waits for the lock on a session's row. A
    /// service gives up after a second, so a busy machine may miss the wait.
    pub fn observes_row_lock_wait(&self, session: &Session) -> bool {
        /// The database repeats its last report for 100 ms.
        const REPORT_INTERVAL: Duration = Duration::from_millis(110);
        let waiting = format!(
            "SELECT COUNT(*) FROM information_schema.innodb_trx \
             WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%{}%'",
            session.prospect
        );
        let mut conn = self.database.connect();
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            // Let other tests get the mutex.
            thread::sleep(Duration::from_millis(1));
            let _alone = self.row_lock_query.lock().unwrap();
            thread::sleep(REPORT_INTERVAL);
            if conn.query_first::<u64, _>(&waiting).unwrap() > Some(0) {
                return true;
            }
        }
        false
    }

    /// Sends a request that waits for the row of a session while its lease expires. Returns the
    /// answer.
    pub fn expire_behind_row_lock(
        &self,
        session: &Session,
        ask: impl Fn(&Service) -> Reply + Sync,
    ) -> Reply {
        let has_expired = format!(
            "SELECT TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)) >= 30000000 FROM {TABLE} WHERE {session}"
        );
        // On a busy machine, the request may give up before its wait is observed.
        for _ in 0..10 {
            // From here, the lease has more than half a second left.
            self.sql("DO SLEEP(1.4 - MICROSECOND(NOW(6)) / 1000000)");
            self.sql(format!(
                "UPDATE {TABLE} SET timestamp = CONCAT(DATE_FORMAT(NOW() - INTERVAL 29 SECOND, \
                 '%Y-%m-%d %H:%i:%s'), SUBSTRING(timestamp, 20)) WHERE {session}"
            ));
            let mut other_program = self.lock_row(session);
            let (is_observed, reply) = thread::scope(|scope| {
                let asked = scope.spawn(|| ask(&self.service));
                let is_observed = self.observes_row_lock_wait(session);
                eventually(
                    || "the lease expires",
                    || {
                        let expired: Option<bool> =
                            other_program.query_first(&has_expired).unwrap();
                        expired.filter(|expired| *expired)
                    },
                );
                other_program.query_drop("ROLLBACK").unwrap();
                (is_observed, asked.join().unwrap())
            });
            if is_observed && reply.status != 503 {
                return reply;
            }
        }
        panic!("no request was observed to wait for {session}");
    }
}

fn insert(conn: &mut mysql::Conn, session: &Session, timestamp: &str) {
    let Session { device, prospect } = session;
    let sql = format!("INSERT INTO {TABLE} (id_device, id_prospect, timestamp) VALUES (?, ?, ?)");
    conn.exec_drop(sql, (device, prospect, timestamp)).unwrap();
}

/// Writes as another program does, and repeats the write after a deadlock. On a small table, the
/// database may scan and lock all rows, and so wait for the locks of other tests. While it waits,
/// it holds no other lock on a row or gap.
pub fn write(conn: &mut mysql::Conn, sql: &str) {
    const DEADLOCK: u16 = 1213;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").unwrap();
    while let Err(error) = conn.query_drop(sql) {
        let is_deadlock = matches!(&error, mysql::Error::MySqlError(e) if e.code == DEADLOCK);
        assert!(is_deadlock, "{error}");
    }
}

/// Lets time pass for one session: moves its row's date into the past.
pub fn age(conn: &mut mysql::Conn, session: &Session, seconds: u64) {
    write(
        conn,
        &format!(
            "UPDATE {TABLE} SET timestamp = CONCAT(DATE_FORMAT(CAST(LEFT(timestamp, 19) AS DATETIME) \
             - INTERVAL {seconds} SECOND, '%Y-%m-%d %H:%i:%s'), SUBSTRING(timestamp, 20)) WHERE {session}"
        ),
    );
    assert_eq!(conn.affected_rows(), 1, "{session} has a row to age");
}
