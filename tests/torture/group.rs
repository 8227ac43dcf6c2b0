//! MySQL Group Replication with three nodes and one primary.

use std::net::SocketAddr;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::world::Group;

impl Cluster for Group {
    const NAME: &str = "group";

    /// A node that does not answer is expelled after 5 s, which cannot be set.
    const RECOVERS_WITHIN: Duration = Duration::from_secs(16);

    fn start() -> Self {
        Self::start(3, &[])
    }

    fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].address()
    }

    fn signal_first(&self, name: &str) {
        self.nodes[0].signal(name);
    }
}
