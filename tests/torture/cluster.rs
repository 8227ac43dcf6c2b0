//! A cluster, all of whose traffic goes to its first node. That node is killed, or hangs and is
//! expelled, and the servers are pointed at the next.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mysql::prelude::Queryable;
use session_lock::testing::DATABASE;

use crate::run::run;
use crate::world::{Proxy, migrate};

/// How long the clients ask before a node of the cluster fails.
const HEALTHY: Duration = Duration::from_secs(10);

/// The longest until the operator points the servers at the next node.
const REACTION_MS: u64 = 3_000;

pub trait Cluster {
    const NAME: &str;

    /// How long after the failure of the first node the second takes writes, at the latest.
    const RECOVERS_WITHIN: Duration;

    fn start() -> Self;

    fn address(&self, node: usize) -> SocketAddr;

    /// Sends a signal (`-STOP`) to the first node.
    fn signal_first(&self, name: &str);
}

/// One cluster after the other.
pub fn torture<C: Cluster>(lasts: Duration, seed: u64) {
    let began = Instant::now();
    let mut rng = Rng::with_seed(seed);
    while began.elapsed() < lasts {
        let cluster = C::start();
        let url = format!("mysql://root@{}/", cluster.address(0));
        let mut conn = mysql::Conn::new(mysql::Opts::from_url(&url).unwrap()).unwrap();
        conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4"))
            .unwrap();
        migrate(&format!("{url}{DATABASE}"));
        let proxies = [(); 2].map(|()| Proxy::start(cluster.address(0)));
        run(C::NAME, &proxies, rng.u64(..1_000_000), |servers| {
            thread::sleep(HEALTHY);
            let hangs = rng.bool();
            cluster.signal_first(if hangs { "-STOP" } else { "-KILL" });
            // Until then, the second server still uses a node that has been expelled.
            let is_late = rng.bool();
            for (proxy, is_late) in proxies.iter().zip([false, is_late]) {
                if !is_late {
                    thread::sleep(Duration::from_millis(rng.u64(..REACTION_MS)));
                    proxy.redirect(cluster.address(1));
                }
            }
            thread::sleep(C::RECOVERS_WITHIN / 2);
            if hangs {
                cluster.signal_first("-CONT");
            }
            thread::sleep(C::RECOVERS_WITHIN / 2);
            proxies[1].redirect(cluster.address(1));
            thread::sleep(HEALTHY / 2);
            servers.run.count(if hangs { "node hung" } else { "node killed" });
            if is_late {
                servers.run.count("one server pointed at the next node late");
            }
        });
    }
}
