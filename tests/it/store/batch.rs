//! Requests that wait at the same time go to the database together, and each gets its own answer.

use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Reply, Service, Session, TABLE, World, eventually, tests};

tests![
    everybody_in_a_batch_gets_their_own_answer,
    a_batch_tells_its_own_deletions_from_an_old_programs,
    a_locked_row_does_not_fail_the_rest_of_its_batch,
    many_locked_rows_do_not_fail_the_rest_of_their_batch,
    an_unusable_message_table_does_not_fail_requests_without_a_message,
    a_forced_release_reaches_its_row_beside_another_spelling,
    a_lost_lease_is_told_lost_beside_a_row_of_another_spelling,
    a_deadlock_is_no_answer,
    a_retry_that_loses_to_its_own_lease_is_told_again,
    a_retry_beside_a_new_lease_is_told_again,
    a_token_that_is_used_for_two_sessions_releases_its_own_only,
    a_batch_that_waits_keeps_a_lease_that_another_server_granted,
    a_missing_message_table_is_no_answer_to_those_who_need_none,
    a_request_that_is_refused_fails_nobody_behind_it,
];

/// The worker waits for the lock for 1 s. A request may use a connection that is already open.
const RECEIVED_WITHIN: Duration = Duration::from_millis(700);

type Request<'a> = Box<dyn FnOnce() -> Reply + Send + 'a>;

/// Sends these requests while the only worker is busy, so that they wait together.
fn send_together(world: &World, service: &Service, requests: Vec<Request>) -> Vec<Reply> {
    let busy = Session::new();
    world.store(&busy, "garbage");
    let mut other_program = world.lock_row(&busy);
    thread::scope(|scope| {
        scope.spawn(|| service.acquire(&busy, json!({})));
        world.wait_for_write(&busy);
        let connected = service.open_descriptors() + requests.len();
        let until = Instant::now() + RECEIVED_WITHIN;
        let asked: Vec<_> = requests.into_iter().map(|request| scope.spawn(request)).collect();
        while service.open_descriptors() < connected && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(200));
        // The slower the machine is, the longer these take, and the requests before them.
        for _ in 0..4 {
            if Instant::now() < until {
                service.get("/healthz");
            }
        }
        other_program.query_drop("ROLLBACK").unwrap();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    })
}

fn statuses(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.status).collect()
}

fn everybody_in_a_batch_gets_their_own_answer(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let sessions: Vec<_> = (0..24).map(|_| Session::new()).collect();
    // Some sessions are free, some are held by an old program, and some rows are stale.
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
        Box::new(move || service.acquire(&session, fields)) as Request
    });
    let replies = send_together(world, &service, requests.collect());
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
        Box::new(move || service.release(&session, &token(number))) as Request
    });
    let replies = send_together(world, &service, requests.collect());
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
        Box::new(move || service.release(session, token)) as Request
    });
    let replies = send_together(world, &service, requests.collect());
    assert_eq!(statuses(&replies), [200, 409, 200, 409, 200, 200]);
}

fn a_locked_row_does_not_fail_the_rest_of_its_batch(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let (locked, free) = (Session::new(), Session::new());
    world.store(&locked, "garbage");
    let mut other_program = world.lock_row(&locked);
    let requests = [&free, &locked, &free, &locked].map(|session| {
        let (service, session) = (&service, session.clone());
        Box::new(move || service.acquire(&session, json!({}))) as Request
    });
    let replies = send_together(world, &service, requests.into());
    let mut statuses = statuses(&replies);
    other_program.query_drop("ROLLBACK").unwrap();
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
    let other_programs: Vec<_> = locked.iter().map(|session| world.lock_row(session)).collect();
    let free: Vec<_> = (0..3).map(|_| Session::new()).collect();
    let requests = locked.iter().chain(&free).map(|session| {
        let service = &service;
        Box::new(move || service.acquire(session, json!({}))) as Request
    });
    let replies = send_together(world, &service, requests.collect());
    for mut other_program in other_programs {
        other_program.query_drop("ROLLBACK").unwrap();
    }
    assert_eq!(statuses(&replies), [503, 503, 503, 503, 503, 200, 200, 200], "{:?}", &replies[5..]);
}

fn an_unusable_message_table_does_not_fail_requests_without_a_message(world: &World) {
    /// One by one, those with a message would wait for a dozen seconds.
    const REQUESTS: usize = 24;
    for (change, status, word) in [
        ("LOCK TABLES session_lock_message WRITE", 503, "another program holds a database lock"),
        ("DROP TABLE session_lock_message", 400, "session_lock_message"),
    ] {
        let own = World::start(world.engine);
        let service = own.serve(&["--workers", "1"]);
        let mut other_program = own.database.connect();
        other_program.query_drop(change).unwrap();
        let requests = (0..REQUESTS).map(|number| {
            let (service, session) = (&service, Session::new());
            let fields = if number % 2 == 0 { json!({"message_id": "m"}) } else { json!({}) };
            Box::new(move || service.acquire(&session, fields)) as Request
        });
        let replies = send_together(&own, &service, requests.collect());
        let expected = [status, 200].into_iter().cycle().take(REQUESTS);
        assert_eq!(statuses(&replies), expected.collect::<Vec<_>>(), "{change}");
        assert!(replies[0].text.contains(word), "{:?}", replies[0]);
    }
}

fn a_forced_release_reaches_its_row_beside_another_spelling(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let session = Session::new();
    service.hold(&session);
    let accented = session.accented();
    let requests: Vec<Request> = vec![
        Box::new(|| service.acquire(&session, json!({}))),
        Box::new(|| service.force(&accented, json!({}))),
    ];
    let replies = send_together(world, &service, requests);
    assert_eq!(replies[1].status, 200, "{:?}", replies[1]);
}

fn a_lost_lease_is_told_lost_beside_a_row_of_another_spelling(world: &World) {
    let service = world.serve(&["--workers", "1", "--max-hold-ms", "60000"]);
    let (session, lost) = (Session::new(), Session::new());
    let accented = session.accented();
    world.store(&accented, "2020-01-01 00:00:00");
    // A takeover does not change the spelling.
    let granted = service.acquire(&session, json!({}));
    let token = granted.text("owner_token");
    // By its fencing token, the lease was granted 100 s ago.
    world.set_fencing_token(&session, granted.number("fencing_token") - 100_000_000);
    let requests: Vec<Request> = vec![
        Box::new(|| service.renew(&session, &token, 30_000)),
        Box::new(|| service.release(&lost, &token)),
    ];
    let replies = send_together(world, &service, requests);
    let reasons = [&replies[0], &replies[1]].map(|reply| reply.text("reason"));
    assert_eq!(reasons, ["max_hold", "lost"]);
}

fn a_deadlock_is_no_answer(world: &World) {
    let service = world.serve(&["--workers", "1"]);
    let schema = world.schema();
    schema.sql("CREATE TABLE weight (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE = InnoDB");
    eventually(
        || "our releases are observed to wait",
        || release_in_a_deadlock(world, &service, &schema.name),
    );
    let metrics = service.text("/metrics");
    let none = "\nsession_lock_deadlock_retries_total 0\n";
    assert!(!metrics.contains(none), "{metrics}");
}

/// Releases two sessions together while another program locks the second before the first. Returns
/// `None` if the releases gave up before their wait was observed, as on a busy machine.
fn release_in_a_deadlock(world: &World, service: &Service, schema: &str) -> Option<()> {
    let sessions = [Session::new(), Session::new()];
    let [first, second] = &sessions;
    let tokens = sessions.each_ref().map(|session| service.hold(session));
    // The database rolls back the transaction that has written less, which is the service's.
    let mut other_program = world.lock_row(second);
    for _ in 0..50 {
        let insert = format!("INSERT INTO {schema}.weight VALUES (NULL)");
        other_program.query_drop(insert).unwrap();
    }
    let key = format!("SELECT id_sessionX FROM {TABLE} WHERE {first}");
    let key: u64 = world.rows(key)[0];
    let (is_observed, replies) = thread::scope(|scope| {
        let requests = sessions
            .iter()
            .zip(&tokens)
            .map(|(session, token)| Box::new(move || service.release(session, token)) as Request);
        let requests = requests.collect();
        let asked = scope.spawn(|| send_together(world, service, requests));
        let is_observed = world.observes_row_lock_wait(second);
        if is_observed {
            let lock = format!("SELECT * FROM {TABLE} WHERE id_sessionX = {key} FOR UPDATE");
            other_program.query_drop(lock).unwrap();
        }
        other_program.query_drop("ROLLBACK").unwrap();
        (is_observed, asked.join().unwrap())
    });
    if !is_observed {
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
        let requests: Vec<Request> = vec![
            Box::new(|| service.acquire(&retried, fields)),
            Box::new(|| service.acquire(&free, json!({"owner_token": "48210000000000000009"}))),
        ];
        send_together(world, &service, requests)
    });
    replies[0].assert_granted("again");
    replies[1].assert_granted("new");
    assert_eq!(replies[0].number("fencing_token"), granted.number("fencing_token"));
    assert_eq!(world.stored(&retried), Some(stored));
}

/// Sends requests that wait for another server's write of this session. Returns the answers.
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
    let requests: Vec<Request> = vec![
        Box::new(|| service.release(&one, stale)),
        Box::new(|| service.release(&other, token)),
    ];
    let replies = send_together(world, &service, requests);
    assert_eq!(statuses(&replies), [409, 200]);
    assert_eq!(service.release(&one, token).status, 200);
}

/// The batch waits for another session, and meanwhile a worker whose first request is in it asks
/// another server, with the same owner token, and commits.
fn a_batch_that_waits_keeps_a_lease_that_another_server_granted(world: &World) {
    const OWNER: &str = "48210000000000000007";
    // This test has its own servers and database, because much must happen within a second.
    let world = &World::start(world.engine);
    let service = world.serve(&["--workers", "1"]);
    let fields = json!({"owner_token": OWNER, "message_id": "m"});
    for _ in 0..40 {
        let mut sessions = [Session::new(), Session::new()];
        sessions.sort_by(|a, b| a.prospect.cmp(&b.prospect));
        let [locked, session] = &sessions;
        world.store(locked, "garbage");
        let mut other_program = world.lock_row(locked);
        let requests: Vec<Request> = vec![
            // With an INSERT of its own, like the other, so that it is before the other.
            Box::new(|| service.acquire_for(locked, "m")),
            Box::new(|| service.acquire(session, fields.clone())),
        ];
        let (granted, replies) = thread::scope(|scope| {
            let asked = scope.spawn(|| send_together(world, &service, requests));
            world.wait_for_write(locked);
            let granted = world.service.acquire(session, fields.clone());
            world.service.commit(session, OWNER, "m").assert_committed("new");
            other_program.query_drop("ROLLBACK").unwrap();
            (granted, asked.join().unwrap())
        });
        if granted.json["how"] == "new" && replies[1].json["reason"] == "duplicate" {
            world.service.acquire(session, json!({})).assert_held();
            assert_eq!(world.service.renew(session, OWNER, 30_000).status, 200);
            return;
        }
        // The machine stalled, and the wait for the lock ended too early.
    }
    panic!("the batch never waited long enough");
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
            return Box::new(move || service.acquire(session, fields)) as Request;
        }
        let owner_token = service.hold(session);
        Box::new(move || service.release(session, &owner_token)) as Request
    });
    let replies = send_together(&own, &service, requests.collect());
    assert_eq!(statuses(&replies), [400, 200, 200, 200]);
}

fn a_request_that_is_refused_fails_nobody_behind_it(world: &World) {
    let own = World::start(world.engine);
    let service = own.serve(&["--workers", "1"]);
    let session = Session::new();
    // After the first inspection of the table, so that the database refuses the request.
    thread::sleep(Duration::from_secs(1));
    own.sql("DROP TABLE session_lock_message");
    let behind = || {
        thread::sleep(Duration::from_millis(100));
        service.acquire(&session, json!({}))
    };
    let requests: Vec<Request> =
        vec![Box::new(|| service.acquire_for(&session, "m")), Box::new(behind)];
    let replies = send_together(&own, &service, requests);
    replies[0].assert_refused(400, "invalid_request");
    replies[1].assert_granted("new");
}
