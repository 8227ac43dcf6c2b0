//! Proxies with their own connections to the database.

use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{Proxy, Service, Session, World, assert_says, run_check, tests};

tests![
    where_numbers_are_a_proxys_own_a_lost_write_is_waited_out_and_nobody_is_killed,
    a_lease_is_not_taken_for_new_where_unchanged_rows_are_counted,
];

/// A statement that has reached the server takes effect at most this time after its connection was
/// lost.
const LATE_WRITE_MAX: Duration = Duration::from_secs(3);

fn where_numbers_are_a_proxys_own_a_lost_write_is_waited_out_and_nobody_is_killed(world: &World) {
    let proxy = Proxy::start(world.database.address());
    let mut bot = world.database.connect();
    // The service sees the number of the bot's connection on each of its connections.
    proxy.number_connections(bot.connection_id());
    let service = Service::start(&proxy.url(DATABASE), &[]);
    service.wait_for_line("WARN  proxy CONNECTION_ID() is not the number of the handshake");
    let checked = run_check(&proxy.url(DATABASE));
    assert_eq!(checked.status, Some(0), "{checked:?}");
    assert_says(&checked.out, &["warning  proxy"]);

    let mut is_settled = || {
        let session = Session::new();
        // The write waits for this insert while its connection is lost.
        let mut other_program = world.insert_row(&session);
        let (reply, took) = thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let began = Instant::now();
                (service.acquire(&session, json!({})), began.elapsed())
            });
            world.wait_for_write(&session);
            proxy.redirect(world.database.address());
            other_program.query_drop("ROLLBACK").unwrap();
            asked.join().unwrap()
        });
        assert!(took > LATE_WRITE_MAX, "{took:?}: {reply:?}");
        bot.ping().unwrap();
        // On a machine that stalls, the write may time out before.
        let has_token = reply.json.get("owner_token").is_some();
        assert!(has_token, "{reply:?}");
        service.recovery();
        reply.status == 200
    };
    assert!((0..3).any(|_| is_settled()), "no lost write was settled");
}

fn a_lease_is_not_taken_for_new_where_unchanged_rows_are_counted(world: &World) {
    let proxy = Proxy::start(world.database.address());
    proxy.count_found_rows();
    let services = [(); 2].map(|()| Service::start(&proxy.url(DATABASE), &[]));
    assert_repeats_keep_the_lease(&services);
}

/// An owner that repeats its requests keeps its lease, even if its message is answered.
pub fn assert_repeats_keep_the_lease(services: &[Service; 2]) {
    let (session, message_id) = (Session::new(), "wamid.1");
    let owner_token = services[0].hold_for(&session, message_id);
    services[0].commit(&session, &owner_token, message_id).assert_committed("new");
    let fencing_token = services[0].get(&session.path()).number("fencing_token");
    for service in services {
        let for_message = json!({"owner_token": owner_token, "message_id": message_id});
        service.acquire(&session, for_message).assert_duplicate(message_id);
        let again = service.acquire(&session, json!({"owner_token": owner_token}));
        again.assert_granted("again");
        assert_eq!(again.number("fencing_token"), fencing_token);
        service.commit(&session, &owner_token, message_id).assert_committed("again");
    }
}
