//! MySQL Group Replication, with one primary.

use std::thread;

use mysql::prelude::Queryable;

use super::{DatabaseServer, Engine, eventually, free_port};

/// Any UUID works: the members find each other by their ports.
const GROUP_NAME: &str = "5e551041-10c8-4000-8000-000000000001";

/// The weight of the first node. Each further node has a lower weight, so that the next primary is
/// known.
const HIGHEST_WEIGHT: usize = 90;

/// A group of MySQL servers. The first is the primary; if it fails, the second takes over, and so
/// on.
pub struct Group {
    pub nodes: Vec<DatabaseServer>,
}

impl Group {
    /// Starts a group of this many servers, each with these additional options.
    pub fn start(size: usize, options: &[&str]) -> Self {
        let ports: Vec<_> = (0..size).map(|_| free_port()).collect();
        let seeds: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let nodes: Vec<_> = thread::scope(|scope| {
            let start = |number| {
                let seeds = &seeds;
                scope.spawn(move || start_node(number, seeds, options))
            };
            let starting: Vec<_> = (0..size).map(start).collect();
            starting.into_iter().map(|node| node.join().expect("see above")).collect()
        });
        for (number, node) in nodes.iter().enumerate() {
            let mut conn = node.connect();
            let bootstrap = |conn: &mut mysql::Conn, value| {
                let sql = format!("SET GLOBAL group_replication_bootstrap_group = {value}");
                conn.query_drop(sql).unwrap();
            };
            if number == 0 {
                bootstrap(&mut conn, "ON");
            }
            conn.query_drop("START GROUP_REPLICATION USER = 'root'").unwrap();
            if number == 0 {
                bootstrap(&mut conn, "OFF");
            }
        }
        let group = Self { nodes };
        for node in &group.nodes {
            let states = || member_states(node);
            let is_complete = || states().iter().filter(|state| *state == "ONLINE").count() == size;
            eventually(
                || format!("a complete group: {:?}", states()),
                || is_complete().then_some(()),
            );
        }
        group
    }

    /// Kills all servers but the first, which then cannot commit.
    pub fn lose_quorum(&self) {
        self.nodes[1..].iter().for_each(DatabaseServer::crash);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A server without a quorum ignores a request to shut down.
        self.nodes.iter().filter(|node| node.is_running()).for_each(DatabaseServer::crash);
    }
}

/// Starts one server, not yet in the group.
fn start_node(number: usize, seeds: &[String], options: &[&str]) -> DatabaseServer {
    let port = free_port();
    let own = [
        format!("--server-id={}", number + 1),
        format!("--report-port={port}"),
        format!("--group-replication-local-address={}", seeds[number]),
        format!("--group-replication-group-seeds={}", seeds.join(",")),
        format!("--group-replication-group-name={GROUP_NAME}"),
        format!("--group-replication-member-weight={}", HIGHEST_WEIGHT - 10 * number),
    ];
    let shared = [
        "--report-host=127.0.0.1",
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--plugin-load-add=group_replication.so",
        "--group-replication-start-on-boot=OFF",
        "--group-replication-member-expel-timeout=0",
    ];
    let all = own.iter().map(String::as_str).chain(shared).chain(options.iter().copied());
    let server = DatabaseServer::start_on(Engine::MySql, port, &all.collect::<Vec<_>>());
    // The database that each server creates for itself must not be a transaction of the group.
    server.connect().query_drop("RESET BINARY LOGS AND GTIDS").unwrap();
    server
}

/// The states of all members, as this member sees them: a killed one is `UNREACHABLE` after 5 s.
fn member_states(node: &DatabaseServer) -> Vec<String> {
    let sql = "SELECT member_state FROM performance_schema.replication_group_members";
    node.connect().query(sql).unwrap()
}
