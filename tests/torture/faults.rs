//! Faults of the database, the network and the servers, in random order.

use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::run::{Servers, run};
use crate::world::{DatabaseServer, Engine, Fault, Proxy};

/// One database after another fault. Returns the number of operations.
pub fn torture(engine: Engine, servers: usize, lasts: Duration, seed: u64) -> u64 {
    let mut database = DatabaseServer::start_migrated(engine, &[]);
    let proxies: Vec<_> = (0..servers).map(|_| Proxy::start(database.address())).collect();
    run(engine.name(), &proxies, seed, |servers| {
        let mut rng = Rng::with_seed(seed);
        while servers.run.began.elapsed() < lasts {
            thread::sleep(Duration::from_millis(rng.u64(200..2_000)));
            let fault = break_something(&mut rng, &mut database, servers);
            servers.run.count(fault);
        }
    })
}

/// One fault, from its beginning to its end. Returns its name.
fn break_something(
    rng: &mut Rng,
    database: &mut DatabaseServer,
    servers: &mut Servers,
) -> &'static str {
    let pause = Duration::from_millis(rng.u64(100..4_000));
    let number = rng.usize(..servers.services.len());
    match rng.u32(..13) {
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
        kind => {
            let proxies =
                if rng.bool() { servers.proxies } else { &servers.proxies[number..=number] };
            break_network(rng, proxies, pause, kind)
        }
    }
}

fn break_network(rng: &mut Rng, proxies: &[Proxy], pause: Duration, kind: u32) -> &'static str {
    let (fault, lasts, name) = match kind {
        6 => (Fault::Reset, pause, "network cut"),
        7 => (Fault::Hold, pause, "network held"),
        8 => (Fault::Discard, pause, "network silent"),
        9 => (Fault::DiscardReplies, pause, "answers lost"),
        10 => (Fault::HoldWrites, pause, "writes late"),
        11 => (Fault::Delay(Duration::from_millis(rng.u64(1..300))), pause, "network slow"),
        _ => (Fault::Reset, pause / 40, "network cut in a blink"),
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
