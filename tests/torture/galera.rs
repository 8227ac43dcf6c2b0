//! A Galera cluster of three nodes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::world::signal;

/// Without it a node may not have applied yet what was committed at the one before it.
const SETTINGS: &str = "--wsrep-sync-wait=1";

pub struct Galera {
    child: Child,
    nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

struct Node {
    port: u16,
    pid: String,
}

impl Cluster for Galera {
    const NAME: &str = "galera";

    const RECOVERS_WITHIN: Duration = Duration::from_secs(10);

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

    fn address(&self, node: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.nodes[node].port).into()
    }

    fn signal_first(&self, name: &str) {
        signal(&self.nodes[0].pid, name);
    }
}

impl Drop for Galera {
    fn drop(&mut self) {
        // It ends the nodes when its input ends.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
