//! A Galera cluster of three nodes, all of whose traffic goes to one of them. That node is killed, or
//! hangs and is expelled, and the servers are pointed at the next.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mysql::prelude::Queryable;
use session_lock::testing::DATABASE;

use crate::run::run;
use crate::world::{Proxy, migrate, signal};

/// How long the clients ask before and after a node of the cluster fails.
const PHASE: Duration = Duration::from_secs(10);

/// The longest until the operator points the servers at the next node.
const REACTION_MS: u64 = 3_000;

/// Without it a node may not have applied yet what was committed at the one before it.
const SETTINGS: &str = "--wsrep-sync-wait=1";

struct Cluster {
    child: Child,
    nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

struct Node {
    port: u16,
    pid: String,
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/galera"))
            .arg(folder.path())
            .env("CLUSTER_OPTIONS", SETTINGS)
            // In bash, SECONDS is a counter that starts with this value.
            .env_remove("SECONDS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // node N port PORT socket SOCKET pid PID
        let read = |line: String| {
            let words: Vec<_> = line.split(' ').collect();
            Node { port: words[3].parse().unwrap(), pid: words[7].to_owned() }
        };
        let lines = lines.map_while(Result::ok);
        let nodes: Vec<_> = lines.take_while(|line| line != "ready").map(read).collect();
        assert_eq!(nodes.len(), 3, "the cluster says above what is wrong");
        Self { child, nodes, _folder: folder }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It ends the nodes when its input ends.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Node {
    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn signal(&self, name: &str) {
        signal(&self.pid, name);
    }
}

/// One cluster after the other.
pub fn torture(lasts: Duration, seed: u64) {
    let began = Instant::now();
    let mut rng = Rng::with_seed(seed);
    while began.elapsed() < lasts {
        let cluster = Cluster::start();
        let url = format!("mysql://root@{}/", cluster.nodes[0].address());
        let mut conn = mysql::Conn::new(mysql::Opts::from_url(&url).unwrap()).unwrap();
        conn.query_drop(format!("CREATE DATABASE {DATABASE}")).unwrap();
        migrate(&format!("{url}{DATABASE}"));
        let proxies = [(); 2].map(|()| Proxy::start(cluster.nodes[0].address()));
        run("galera", &proxies, rng.u64(..1_000_000), |servers| {
            thread::sleep(PHASE);
            let hangs = rng.bool();
            cluster.nodes[0].signal(if hangs { "-STOP" } else { "-KILL" });
            thread::sleep(Duration::from_millis(rng.u64(..REACTION_MS)));
            for proxy in &proxies {
                proxy.redirect(cluster.nodes[1].address());
            }
            thread::sleep(PHASE / 2);
            if hangs {
                cluster.nodes[0].signal("-CONT");
            }
            thread::sleep(PHASE / 2);
            servers.run.count(if hangs { "node hung" } else { "node killed" });
        });
    }
}
