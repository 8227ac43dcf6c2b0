//! Writes whose answer is lost, and writes that arrive late.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::OwnerToken;

use crate::world::{
    Fault, MESSAGE_TABLE, Proxy, Reply, Service, Session, TABLE, World, eventually, raw_post, tests,
};

tests![
    a_lease_that_nobody_could_be_told_of_belongs_to_the_token_in_the_503,
    a_write_that_arrives_late_holds_nothing,
    a_release_is_not_committed_without_its_message_when_its_server_dies,
];

fn a_lease_that_nobody_could_be_told_of_belongs_to_the_token_in_the_503(world: &World) {
    let (proxy, service) = world.serve_through_proxy(&[]);
    let (session, refused) = acquire_without_answer(world, &proxy, &service);
    let token = refused.text("owner_token");
    world.service.acquire(&session, json!({})).assert_held();
    // Its worker repeats the request at another server, with the token of the 503.
    let again = world.service.acquire(&session, json!({"owner_token": token}));
    again.assert_granted("again");
    assert_eq!(world.service.renew(&session, &token, 30_000).status, 200);
    proxy.set(Fault::None);
    service.recovery();
    assert_eq!(service.release(&session, &token).status, 200);
    // The lost connection was ended. Its absence is not an error of the database.
    let refused = "session_lock_database_errors_total{kind=\"refused\"} 0\n";
    assert!(service.text("/metrics").contains(refused), "{}", service.text("/metrics"));
}

/// Writes a lease of which the service gets no answer: the database's answer is lost, and then the
/// database is unreachable. Returns the session and the 503.
fn acquire_without_answer(world: &World, proxy: &Proxy, service: &Service) -> (Session, Reply) {
    for _ in 0..10 {
        let session = Session::new();
        // The write waits for this insert, so that exactly its answer is lost.
        let mut other_program = world.insert_row(&session);
        let is_written = || world.stored(&session).is_some();
        let refused = thread::scope(|scope| {
            let asked = scope.spawn(|| service.acquire(&session, json!({})));
            world.wait_for_write(&session);
            proxy.set(Fault::DiscardReplies);
            other_program.query_drop("ROLLBACK").unwrap();
            let until = Instant::now() + Duration::from_secs(3);
            while !is_written() && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            proxy.set(Fault::Reset);
            asked.join().unwrap()
        });
        if is_written() && refused.json.get("owner_token").is_some() {
            assert_eq!(refused.status, 503, "{refused:?}");
            return (session, refused);
        }
        // The machine stalled, and the wait for the lock ended too early.
        proxy.set(Fault::None);
        service.recovery();
    }
    panic!("no answer was lost");
}

fn a_write_that_arrives_late_holds_nothing(world: &World) {
    let (proxy, service) = world.serve_through_proxy(&[]);
    let session = Session::new();
    proxy.set(Fault::HoldWrites);
    let token = OwnerToken::draw();
    let refused = service.acquire(&session, json!({"owner_token": token.secret()}));
    refused.assert_refused(503, "unavailable");
    thread::sleep(Duration::from_secs(1));
    // Now the write arrives, on a connection that has been ended meanwhile.
    proxy.set(Fault::None);
    thread::sleep(Duration::from_millis(300));
    world.service.acquire(&session, json!({})).assert_granted("new");
}

/// The database notices the death of a client at the reply to a statement, and runs the next ones.
fn a_release_is_not_committed_without_its_message_when_its_server_dies(world: &World) {
    let world = &World::start(world.engine);
    let service = Service::start(&world.database.socket_url(), &["--workers", "1"]);
    let session = Session::new();
    let token = service.hold(&session);
    let mut other_program = world.lock_row(&session);
    let mut client = service.endpoint.connect();
    let body = session.with(json!({"owner_token": token, "message_id": "m"}));
    client.write_all(raw_post("/v1/release", "", body).as_bytes()).unwrap();
    world.wait_for_write(&session);
    service.signal("-KILL");
    other_program.query_drop("ROLLBACK").unwrap();
    eventually(
        || "the end of the transaction",
        || {
            let sql = format!("SELECT 1 FROM {TABLE} WHERE {session} FOR UPDATE NOWAIT");
            world.database.connect().query::<u8, _>(sql).ok()
        },
    );
    let is_held = world.stored(&session).is_some();
    let sql = format!("SELECT COUNT(*) FROM {MESSAGE_TABLE} WHERE {session}");
    let is_recorded = world.rows::<u64>(sql) == [1];
    assert!(is_held != is_recorded, "held: {is_held}, recorded: {is_recorded}");
}
