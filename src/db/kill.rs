//! `KILL` for connections that were lost during a write: a packet that is delayed in the network
//! must not take effect after its operation was sent again.

use std::thread;
use std::time::{Duration, Instant};

use super::connection::{Connection, columns};
use super::error::ErrorKind;
use super::health::{ConnectionId, Kills};
use super::statement::{Statement, Value};

/// How long one attempt waits for the database to end lost connections.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before the next `KILL` of a connection, which ends only when its statement does.
const KILL_INTERVAL: Duration = Duration::from_millis(5);

/// Ends lost connections, within [`KILL_TIMEOUT`].
pub(super) fn kill_all(connection: &mut Connection, lost: &[ConnectionId]) -> Kills {
    let until = Instant::now() + KILL_TIMEOUT;
    let mut kills = Kills::default();
    for lost in lost {
        // Behind a proxy, the number may belong to another connection.
        let (Some(number), Some(_)) = (lost.number, connection.id().number) else { continue };
        match kill(connection, *lost, number, until) {
            Ok(true) => kills.ended.push(*lost),
            Ok(false) => kills.hung.push(*lost),
            Err(_) => {}
        }
    }
    kills
}

/// Kills one lost connection. Returns whether it has ended.
fn kill(
    connection: &mut Connection,
    lost: ConnectionId,
    number: u64,
    until: Instant,
) -> mysql::Result<bool> {
    if lost.server != connection.id().server {
        // On this server, the number belongs to another connection.
        return Ok(true);
    }
    let uptime = Statement::new(include_str!("../../sql/connection/server_uptime.sql"), &[]);
    let uptime = connection.query(&uptime, &[])?.pop().map(columns);
    let uptime: Option<(String, u64)> = uptime.transpose()?;
    let age_s = lost.opened.elapsed().as_secs();
    if uptime.is_some_and(|(_, uptime_s)| uptime_s + 1 < age_s) {
        // The server has restarted since, so the number may belong to another connection.
        return Ok(true);
    }
    let kill = Statement::new(include_str!("../../sql/connection/kill.sql"), &[]);
    loop {
        match connection.query(&kill, &[("id", Value::Number(number))]) {
            Err(error) if ErrorKind::of(&error) == ErrorKind::ConnectionGone => return Ok(true),
            Err(error) => return Err(error),
            Ok(_) if Instant::now() > until => return Ok(false),
            Ok(_) => thread::sleep(KILL_INTERVAL),
        }
    }
}
