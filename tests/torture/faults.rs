//! Faults of the database, the network and the servers, in random order.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use mysql::prelude::Queryable;

use crate::run::{Servers, run};
use crate::world::{DatabaseServer, Engine, Fault, Proxy, Service};

/// The kinds of faults are numbers below this.
const KINDS: u32 = 14;

const BLINK: u32 = 12;

const ZONE_CHANGE: u32 = 13;

const ZONE_CHANGED: &str = "database's time zone changed";

/// A zone ahead of the servers', in which their leases would seem stale, and one behind it, in which
/// they would seem to last for hours.
const ZONES: [&str; 2] = ["+05:30", "-08:00"];

/// One database after another fault. Returns the number of operations.
pub fn torture(engine: Engine, servers: usize, lasts: Duration, seed: u64) -> u64 {
    let mut database = DatabaseServer::start_migrated(engine, &[]);
    let proxies: Vec<_> = (0..servers).map(|_| Proxy::start(database.address())).collect();
    run(engine.name(), &proxies, seed, |servers| {
        let mut rng = Rng::with_seed(seed);
        // The first, so that it happens in a short run, too.
        let mut kind = ZONE_CHANGE;
        servers.run.require(ZONE_CHANGED);
        while servers.run.began.elapsed() < lasts {
            thread::sleep(Duration::from_millis(rng.u64(200..2_000)));
            let fault = break_something(&mut rng, &mut database, servers, kind);
            servers.run.count(fault);
            kind = rng.u32(..KINDS);
        }
    })
}

/// One fault, from its beginning to its end. Returns its name.
fn break_something(
    rng: &mut Rng,
    database: &mut DatabaseServer,
    servers: &mut Servers,
    kind: u32,
) -> &'static str {
    let pause = Duration::from_millis(rng.u64(100..4_000));
    let number = rng.usize(..servers.services.len());
    match kind {
        0 => {
            database.freeze();
            thread::sleep(pause);
            database.thaw();
            "database frozen"
        }
        1 => {
            database.crash();
            thread::sleep(pause / 4);
            database.restart();
            "database killed"
        }
        2 => {
            servers.replace(number, "-KILL");
            "server killed"
        }
        3 => {
            servers.replace(number, "-TERM");
            "server restarted"
        }
        4 => {
            for number in 0..servers.services.len() {
                servers.replace(number, "-TERM");
                thread::sleep(pause / 10);
            }
            "servers restarted in turn"
        }
        5 => {
            servers.services[number].signal("-STOP");
            thread::sleep(pause);
            servers.services[number].signal("-CONT");
            "server paused"
        }
        ZONE_CHANGE => {
            change_zone(rng, database, servers, pause);
            ZONE_CHANGED
        }
        kind => {
            let proxies =
                if rng.bool() { servers.proxies } else { &servers.proxies[number..=number] };
            break_network(rng, proxies, pause, kind)
        }
    }
}

/// The zone of the connections that begin meanwhile. No server is started: it would refuse to.
fn change_zone(rng: &mut Rng, database: &DatabaseServer, servers: &Servers, pause: Duration) {
    servers.services.iter().for_each(Service::wait_until_ready);
    let mut root = database.connect();
    let mut set = |zone| root.query_drop(format!("SET GLOBAL time_zone = '{zone}'")).unwrap();
    set(ZONES[rng.usize(..ZONES.len())]);
    // Later, connections from before and from after the change are in use.
    break_network(rng, &servers.proxies[..1], pause, BLINK);
    thread::sleep(pause);
    set("+00:00");
}

fn break_network(rng: &mut Rng, proxies: &[Proxy], pause: Duration, kind: u32) -> &'static str {
    let (fault, lasts, name) = match kind {
        6 => (Fault::Reset, pause, "network cut"),
        7 => (Fault::Hold, pause, "network held"),
        8 => (Fault::Discard, pause, "network silent"),
        9 => (Fault::DiscardReplies, pause, "answers lost"),
        10 => (Fault::HoldWrites, pause, "writes late"),
        11 => (Fault::Delay(Duration::from_millis(rng.u64(1..300))), pause, "network slow"),
        BLINK => (Fault::Reset, pause / 40, "network cut in a blink"),
        _ => unreachable!("there are no other kinds"),
    };
    for proxy in proxies {
        proxy.set(fault);
    }
    thread::sleep(lasts);
    for proxy in proxies {
        proxy.set(Fault::None);
    }
    name
}
