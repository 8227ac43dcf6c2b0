//! What waits together goes to the database together, and each gets its own answer.

use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Reply, Service, Session, TABLE, World, eventually, tests};

tests![
    everybody_in_a_batch_gets_their_own_answer,
    a_batch_tells_its_own_deletions_from_an_old_programs,
    a_locked_row_does_not_fail_the_rest_of_its_batch,
    many_locked_rows_do_not_fail_the_rest_of_their_batch,
    a_message_table_in_trouble_does_not_fail_those_without_a_message,
    a_forced_release_reaches_its_row_beside_another_spelling,
    a_lost_lease_is_told_lost_beside_a_row_of_another_spelling,
    a_lease_that_was_lost_is_not_released_over_a_dead_connection,
    a_deadlock_is_no_answer,
    a_retry_that_loses_to_its_own_lease_is_told_again,
    a_retry_beside_a_new_lease_is_told_again,
    a_token_that_is_used_for_two_sessions_releases_its_own_only,
    a_missing_message_table_is_no_answer_to_those_who_need_none,
];

type Ask<'a> = Box<dyn FnOnce() -> Reply + Send + 'a>;

/// Asks all of these while the only worker is busy, so that they wait together, for longer than one
/// kind is left for the next batch.
fn ask_together(world: &World, service: &Service, requests: Vec<Ask>) -> Vec<Reply> {
    let busy = Session::new();
    world.store(&busy, "garbage");
    let mut neighbour = world.lock_row(&busy);
    thread::scope(|scope| {
        scope.spawn(|| service.acquire(&busy, json!({})));
        world.wait_for_write(&busy);
        let asked: Vec<_> = requests.into_iter().map(|request| scope.spawn(request)).collect();
        thread::sleep(Duration::from_millis(300));
        neighbour.query_drop("ROLLBACK").unwrap();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    })
}

fn everybody_in_a_batch_gets_their_own_answer(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let sessions: Vec<_> = (0..24).map(|_| Session::new()).collect();
    // Some are free, some held by an old program, some crashed, some of letters and blanks.
    for (number, session) in sessions.iter().enumerate() {
        match number % 4 {
            1 => world.store(session, "2099-01-01 00:00:00"),
            2 => world.store(session, "2020-01-01 00:00:00"),
            _ => {}
        }
    }
    let spelled = |number: usize| {
        let mut session = sessions[number].clone();
        if number % 8 >= 4 {
            session.device = session.device.to_uppercase();
        }
        session
    };
    let token = |number: usize| format!("{:020}", 7_000 + number);
    let requests = (0..sessions.len()).map(|number| {
        let service = &service;
        let (session, ttl_ms) = (spelled(number), 20_000 + 1_000 * number);
        let fields = json!({"owner_token": token(number), "ttl_ms": ttl_ms});
        Box::new(move || service.acquire(&session, fields)) as Ask
    });
    let replies = ask_together(world, &service, requests.collect());
    for (number, reply) in replies.iter().enumerate() {
        match number % 4 {
            1 => reply.assert_held(),
            2 => reply.assert_granted("takeover"),
            _ => reply.assert_granted("new"),
        }
        if number % 4 != 1 {
            assert_eq!(reply.text("owner_token"), token(number));
            let ttl_ms = 20_000 + 1_000 * number as u64;
            let remaining_ms = reply.number("remaining_ms");
            assert!((ttl_ms - 5_000..=ttl_ms).contains(&remaining_ms), "{reply:?}");
            let stored = world.stored(&sessions[number]).unwrap();
            assert!(stored.ends_with(&token(number)), "{stored}");
        }
    }
    let requests = (0..sessions.len()).map(|number| {
        let (service, session) = (&service, spelled(number));
        Box::new(move || service.release(&session, &token(number))) as Ask
    });
    let replies = ask_together(world, &service, requests.collect());
    for (number, reply) in replies.iter().enumerate() {
        assert_eq!(reply.status, if number % 4 == 1 { 409 } else { 200 });
        assert_eq!(world.stored(&sessions[number]).is_some(), number % 4 == 1);
    }
}

fn a_batch_tells_its_own_deletions_from_an_old_programs(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let sessions: Vec<_> = (0..6).map(|_| Session::new()).collect();
    let tokens: Vec<_> = sessions.iter().map(|session| service.hold(session)).collect();
    world.sql(format!("DELETE FROM {TABLE} WHERE {}", sessions[1]));
    world.sql(format!("UPDATE {TABLE} SET timestamp = NOW() WHERE {}", sessions[3]));
    let requests = sessions.iter().zip(&tokens).map(|(session, token)| {
        let service = &service;
        Box::new(move || service.release(session, token)) as Ask
    });
    let replies = ask_together(world, &service, requests.collect());
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [200, 409, 200, 409, 200, 200]);
}

fn a_locked_row_does_not_fail_the_rest_of_its_batch(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let (locked, free) = (Session::new(), Session::new());
    world.store(&locked, "garbage");
    let mut neighbour = world.lock_row(&locked);
    let requests = [&free, &locked, &free, &locked].map(|session| {
        let (service, session) = (&service, session.clone());
        Box::new(move || service.acquire(&session, json!({}))) as Ask
    });
    let replies = ask_together(world, &service, requests.into());
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    neighbour.query_drop("ROLLBACK").unwrap();
    assert_eq!((statuses[1], statuses[3]), (503, 503));
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 503, 503]);
}

fn many_locked_rows_do_not_fail_the_rest_of_their_batch(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let locked: Vec<_> = (0..5).map(|_| Session::new()).collect();
    for session in &locked {
        world.store(session, "garbage");
    }
    let neighbours: Vec<_> = locked.iter().map(|session| world.lock_row(session)).collect();
    let free: Vec<_> = (0..3).map(|_| Session::new()).collect();
    let requests = locked.iter().chain(&free).map(|session| {
        let service = &service;
        Box::new(move || service.acquire(session, json!({}))) as Ask
    });
    let replies = ask_together(world, &service, requests.collect());
    for mut neighbour in neighbours {
        neighbour.query_drop("ROLLBACK").unwrap();
    }
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [503, 503, 503, 503, 503, 200, 200, 200], "{:?}", &replies[5..]);
}

fn a_message_table_in_trouble_does_not_fail_those_without_a_message(world: &World) {
    /// So many that those who go alone in the end need a hundred packets.
    const REQUESTS: usize = 60;
    for (trouble, word) in [
        ("LOCK TABLES session_lock_message WRITE", "another program holds a database lock"),
        ("DROP TABLE session_lock_message", "session_lock_message"),
    ] {
        let own = World::start(world.engine);
        let service = own.serve(&["--workers", "1"]);
        let mut neighbour = own.database.connect();
        neighbour.query_drop(trouble).unwrap();
        let requests = (0..REQUESTS).map(|number| {
            let (service, session) = (&service, Session::new());
            let fields = if number % 2 == 0 { json!({"message_id": "m"}) } else { json!({}) };
            Box::new(move || service.acquire(&session, fields)) as Ask
        });
        let replies = ask_together(&own, &service, requests.collect());
        let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        let expected = [503, 200].into_iter().cycle().take(REQUESTS);
        assert_eq!(statuses, expected.collect::<Vec<_>>(), "{trouble}");
        assert!(replies[0].text.contains(word), "{:?}", replies[0]);
    }
}

fn a_forced_release_reaches_its_row_beside_another_spelling(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let session = Session::new();
    service.hold(&session);
    let mut accented = session.clone();
    accented.device = accented.device.replace("bot", "b\u{f3}t");
    let requests: Vec<Ask> = vec![
        Box::new(|| service.acquire(&session, json!({}))),
        Box::new(|| service.post("/v1/release", accented.with(json!({"force": true})))),
    ];
    let replies = ask_together(world, &service, requests);
    assert_eq!(replies[1].status, 200, "{:?}", replies[1]);
}

fn a_lost_lease_is_told_lost_beside_a_row_of_another_spelling(world: &World) {
    let service = world.serve(&["--workers", "1", "--max-hold-ms", "60000"]);
    let (session, lost) = (Session::new(), Session::new());
    let mut accented = session.clone();
    accented.device = accented.device.replace("bot", "b\u{f3}t");
    world.store(&accented, "2020-01-01 00:00:00");
    // A takeover leaves the spelling as it was.
    let token = service.hold(&session);
    // Granted 100 s ago, by its fencing token.
    world.sql(format!(
        "UPDATE {TABLE} SET timestamp = INSERT(timestamp, 27, 16, CAST(SUBSTRING(timestamp, 27, 16) AS UNSIGNED) - 100000000) \
         WHERE {session}"
    ));
    let requests: Vec<Ask> = vec![
        Box::new(|| service.renew(&session, &token, 30_000)),
        Box::new(|| service.release(&lost, &token)),
    ];
    let replies = ask_together(world, &service, requests);
    let reasons = [&replies[0], &replies[1]].map(|reply| reply.text("reason"));
    assert_eq!(reasons, ["max_hold", "lost"]);
}

fn a_lease_that_was_lost_is_not_released_over_a_dead_connection(world: &World) {
    let own = World::start(world.engine);
    let second = own.serve(&[]);
    let mut conn = own.database.connect();
    // The pool opens connections in the background, which may be spared the first time.
    for number in 0..6 {
        let session = Session::new();
        let lost = own.service.hold(&session);
        own.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
        let heir = (number % 2 == 0).then(|| second.hold(&session));
        let idle = "SELECT id FROM information_schema.processlist \
                    WHERE command = 'Sleep' AND id <> CONNECTION_ID()";
        for id in conn.query::<u64, _>(idle).unwrap() {
            // One may have ended by itself.
            let _ = conn.query_drop(format!("KILL {id}"));
        }
        thread::sleep(Duration::from_millis(200));
        assert_eq!(own.service.release(&session, &lost).status, 409);
        if let Some(heir) = heir {
            assert_eq!(own.service.release(&session, &heir).status, 200);
        }
    }
}

fn a_deadlock_is_no_answer(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let schema = world.schema();
    schema.sql("CREATE TABLE weight (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE = InnoDB");
    eventually(
        || "our writes are seen to wait",
        || release_in_a_deadlock(world, &service, &schema.name),
    );
    let metrics = service.text("/metrics");
    let none = "\nsession_lock_deadlock_retries_total 0\n";
    assert!(!metrics.contains(none), "{metrics}");
}

/// Releases two sessions together while another program locks the second before the first.
/// Nothing, if on a busy machine the releases gave up before they were seen to wait.
fn release_in_a_deadlock(world: &World, service: &Service, schema: &str) -> Option<()> {
    let sessions = [Session::new(), Session::new()];
    let [first, second] = &sessions;
    let tokens = sessions.each_ref().map(|session| service.hold(session));
    // The database undoes the transaction that has done less, which is ours.
    let mut neighbour = world.lock_row(second);
    for _ in 0..50 {
        let insert = format!("INSERT INTO {schema}.weight VALUES (NULL)");
        neighbour.query_drop(insert).unwrap();
    }
    let key = format!("SELECT id_sessionX FROM {TABLE} WHERE {first}");
    let key: u64 = world.rows(key)[0];
    let (is_seen, replies) = thread::scope(|scope| {
        let requests = sessions
            .iter()
            .zip(&tokens)
            .map(|(session, token)| Box::new(move || service.release(session, token)) as Ask);
        let requests = requests.collect();
        let asked = scope.spawn(|| ask_together(world, service, requests));
        let is_seen = world.sees_row_lock(second);
        if is_seen {
            let lock = format!("SELECT * FROM {TABLE} WHERE id_sessionX = {key} FOR UPDATE");
            neighbour.query_drop(lock).unwrap();
        }
        neighbour.query_drop("ROLLBACK").unwrap();
        (is_seen, asked.join().unwrap())
    });
    if !is_seen {
        return None;
    }
    for reply in replies {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    for session in &sessions {
        assert_eq!(world.stored(session), None);
    }
    Some(())
}

fn a_retry_that_loses_to_its_own_lease_is_told_again(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let (retried, model) = (Session::new(), Session::new());
    let fields = json!({"owner_token": "48210000000000000007"});
    let granted = service.acquire(&model, fields.clone());
    granted.assert_granted("new");
    let stored = world.stored(&model).unwrap();
    let told = behind_another_servers_write(world, &retried, &stored, || {
        service.acquire(&retried, fields)
    });
    told.assert_granted("again");
    assert_eq!(told.number("fencing_token"), granted.number("fencing_token"));
    assert_eq!(world.stored(&retried), Some(stored));
}

fn a_retry_beside_a_new_lease_is_told_again(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let (retried, free, model) = (Session::new(), Session::new(), Session::new());
    let fields = json!({"owner_token": "48210000000000000007"});
    let granted = service.acquire(&model, fields.clone());
    let stored = world.stored(&model).unwrap();
    let replies = behind_another_servers_write(world, &retried, &stored, || {
        let requests: Vec<Ask> = vec![
            Box::new(|| service.acquire(&retried, fields)),
            Box::new(|| service.acquire(&free, json!({"owner_token": "48210000000000000009"}))),
        ];
        ask_together(world, &service, requests)
    });
    replies[0].assert_granted("again");
    replies[1].assert_granted("new");
    assert_eq!(replies[0].number("fencing_token"), granted.number("fencing_token"));
    assert_eq!(world.stored(&retried), Some(stored));
}

/// What is answered to requests that wait behind another server's write of this session.
fn behind_another_servers_write<T>(
    world: &World,
    session: &Session,
    stored: &str,
    ask: impl FnOnce() -> T,
) -> T {
    world.store(session, "garbage");
    let mut other_server = world.lock_row(session);
    let sql = format!("UPDATE {TABLE} SET timestamp = '{stored}' WHERE {session}");
    other_server.query_drop(sql).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            world.wait_for_write(session);
            other_server.query_drop("COMMIT").unwrap();
        });
        ask()
    })
}

fn a_token_that_is_used_for_two_sessions_releases_its_own_only(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let (one, other) = (Session::new(), Session::new());
    let other = Session { device: one.device.clone(), ..other };
    let (token, stale) = ("48210000000000000007", "48210000000000000008");
    for session in [&one, &other] {
        let fields = json!({"owner_token": token});
        service.acquire(session, fields).assert_granted("new");
    }
    let requests: Vec<Ask> = vec![
        Box::new(|| service.release(&one, stale)),
        Box::new(|| service.release(&other, token)),
    ];
    let replies = ask_together(world, &service, requests);
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [409, 200]);
    assert_eq!(service.release(&one, token).status, 200);
}

fn a_missing_message_table_is_no_answer_to_those_who_need_none(world: &World) {
    let own = World::start(world.engine);
    let service = own.serve(&["--workers", "1"]);
    own.sql("DROP TABLE session_lock_message");
    let sessions: Vec<_> = (0..4).map(|_| Session::new()).collect();
    let requests = sessions.iter().enumerate().map(|(number, session)| {
        let service = &service;
        if number == 0 {
            let fields = json!({"message_id": "m"});
            return Box::new(move || service.acquire(session, fields)) as Ask;
        }
        let owner_token = service.hold(session);
        Box::new(move || service.release(session, &owner_token)) as Ask
    });
    let replies = ask_together(&own, &service, requests.collect());
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [503, 200, 200, 200]);
}
