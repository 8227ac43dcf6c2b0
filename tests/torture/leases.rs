//! When the leases of a session end by themselves: the one thing in a history that nobody asks for.

use std::collections::{BTreeMap, HashMap};

use crate::lines::Line;
use crate::spec::{Lease, Owner};

/// A lease that its owner does not renew ends at most this much later than the answer says: its
/// expiry is stored in whole seconds, rounded up.
const ROUNDED_UP_US: u64 = 1_000_000;

/// A write of an unknown outcome takes effect within this time after the last word about it: a
/// request ends within 10 s, and no fault lasts longer than 4 s.
pub const LATE_US: u64 = 20_000_000;

/// The ttl of an acquire that names none.
const TTL_DEFAULT_MS: u64 = 30_000;

/// Until when the lease of an acquire without an answer may hold, if there is one.
pub fn ends_us(line: &Line) -> u64 {
    line.answered_us + LATE_US + ttl_us(line) + ROUNDED_UP_US
}

fn ttl_us(line: &Line) -> u64 {
    line.ttl_ms.unwrap_or(TTL_DEFAULT_MS) * 1_000
}

/// What the answers say of a lease.
#[derive(Clone, Debug)]
pub struct Known {
    pub lease: Lease,
    /// The first answer that named it, and the first request to release it.
    answered_us: u64,
    release_us: u64,
}

impl Known {
    /// Whether it certainly held at some time from `called_us` to `answered_us`.
    pub fn held(&self, called_us: u64, answered_us: u64) -> bool {
        self.answered_us <= answered_us && self.lease.earliest_us.min(self.release_us) >= called_us
    }

    fn release(&mut self, line: &Line) {
        self.release_us = self.release_us.min(line.called_us);
    }

    /// A new ttl, or the rest of the old one. It begins after all that is known so far, or
    /// beside it.
    fn renew(&mut self, line: &Line, last_us: u64) {
        let left_us = line.remaining_ms.map_or(ttl_us(line), |left_ms| left_ms * 1_000);
        let earliest_us = line.called_us + left_us;
        let is_certain = line.outcome == "renewed" && line.called_us > last_us;
        self.lease.earliest_us = match () {
            () if is_certain => earliest_us,
            () if line.outcome == "granted" => self.lease.earliest_us.max(earliest_us),
            () => self.lease.earliest_us.min(earliest_us),
        };
        // The first packet of a renew may have taken effect, whatever is answered in the end.
        let late_us = if line.outcome == "unknown" { LATE_US } else { 0 };
        let latest_us = line.answered_us + late_us + left_us + ROUNDED_UP_US;
        self.lease.latest_us = self.lease.latest_us.max(latest_us);
    }
}

/// Every lease of a session that an answer named. The lines are in the order of their calls.
pub fn leases(lines: &[Line]) -> Vec<Known> {
    let mut of_owner: BTreeMap<Owner, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        if let Some(owner) = line.owner {
            of_owner.entry(owner).or_default().push(line);
        }
    }
    of_owner.into_values().flat_map(|lines| of_one_owner(&lines)).collect()
}

fn of_one_owner(lines: &[&Line]) -> Vec<Known> {
    let mut leases: Vec<Known> = Vec::new();
    let mut granted: HashMap<u64, usize> = HashMap::new();
    // An owner token has one lease after the other.
    let mut newest = None;
    let mut last_us = 0;
    for line in lines {
        match (line.operation.as_str(), line.outcome.as_str()) {
            ("acquire", "granted") => {
                let token = line.fencing_token.expect("a lease has a fencing token");
                let number = *granted.entry(token).or_insert_with(|| {
                    leases.push(Known::new(line));
                    leases.len() - 1
                });
                newest = Some(number);
                leases[number].answered_us = leases[number].answered_us.min(line.answered_us);
                leases[number].renew(line, last_us);
            }
            ("renew", _) => {
                if let Some(number) = newest {
                    leases[number].renew(line, last_us);
                }
            }
            ("release", _) => {
                if let Some(number) = newest {
                    leases[number].release(line);
                }
            }
            _ => {}
        }
        last_us = last_us.max(line.answered_us);
    }
    leases
}

/// The lease of a grant that no answer named, if there is one.
pub fn unknown(line: &Line) -> Lease {
    Lease {
        owner: line.owner.expect("a lease has an owner"),
        fencing_token: None,
        earliest_us: line.called_us + ttl_us(line),
        latest_us: u64::MAX,
    }
}

impl Known {
    fn new(line: &Line) -> Self {
        Self {
            lease: Lease {
                fencing_token: line.fencing_token,
                earliest_us: 0,
                latest_us: 0,
                ..unknown(line)
            },
            answered_us: line.answered_us,
            release_us: u64::MAX,
        }
    }
}
