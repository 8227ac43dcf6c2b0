//! When the leases of a session end by themselves: the one thing in a history that nobody asks for.

use std::collections::{BTreeMap, HashMap};

use crate::lines::Line;
use crate::spec::{Action, Owner};

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

/// A lease that there was or, without a fencing token, may have been. It may expire from
/// `earliest_us`, and has expired by `latest_us`, if that is known.
#[derive(Clone, Debug)]
pub struct Lease {
    pub owner: Owner,
    pub fencing_token: Option<u64>,
    pub earliest_us: u64,
    pub latest_us: Option<u64>,
    /// The first answer that named it, and the first request to release it.
    known_us: u64,
    release_us: u64,
    /// It was released before it could expire.
    pub is_released: bool,
}

impl Lease {
    pub fn action(&self) -> Action {
        Action::Expire { owner: self.owner, fencing_token: self.fencing_token }
    }

    /// Whether it certainly held at some time from `called_us` to `answered_us`.
    pub fn held(&self, called_us: u64, answered_us: u64) -> bool {
        self.fencing_token.is_some()
            && self.known_us <= answered_us
            && self.earliest_us.min(self.release_us) >= called_us
    }

    fn release(&mut self, line: &Line) {
        self.release_us = self.release_us.min(line.called_us);
        self.is_released |= line.outcome == "released" && line.answered_us < self.earliest_us;
    }

    /// A new ttl, or the rest of the old one. It begins after all that is known so far, or
    /// beside it.
    fn renew(&mut self, line: &Line, last_us: u64) {
        let left_us = line.remaining_ms.map_or(ttl_us(line), |left_ms| left_ms * 1_000);
        let earliest_us = line.called_us + left_us;
        let is_certain = line.outcome == "renewed" && line.called_us > last_us;
        self.earliest_us = match () {
            () if is_certain => earliest_us,
            () if line.outcome == "granted" => self.earliest_us.max(earliest_us),
            () => self.earliest_us.min(earliest_us),
        };
        // The first packet of a renew may have taken effect, whatever is answered in the end.
        let late_us = if line.outcome == "unknown" { LATE_US } else { 0 };
        let latest_us = line.answered_us + late_us + left_us + ROUNDED_UP_US;
        self.latest_us = self.latest_us.map(|us| us.max(latest_us));
    }
}

/// Every lease of a session that there was, or may have been. The lines are in the order of their
/// calls.
pub fn leases(lines: &[Line]) -> Vec<Lease> {
    let mut of_owner: BTreeMap<Owner, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        if let Some(owner) = line.owner {
            of_owner.entry(owner).or_default().push(line);
        }
    }
    of_owner.into_values().flat_map(|lines| of_one_owner(&lines)).collect()
}

fn of_one_owner(lines: &[&Line]) -> Vec<Lease> {
    let mut leases: Vec<Lease> = Vec::new();
    let mut granted: HashMap<u64, usize> = HashMap::new();
    // An owner token has one lease after the other.
    let mut newest = None;
    let mut last_us = 0;
    for line in lines {
        match (line.operation.as_str(), line.outcome.as_str()) {
            ("acquire", "granted") => {
                let token = line.fencing_token.expect("a lease has a fencing token");
                let number = *granted.entry(token).or_insert_with(|| {
                    leases.push(Lease::new(line));
                    leases.len() - 1
                });
                newest = Some(number);
                leases[number].known_us = leases[number].known_us.min(line.answered_us);
                leases[number].renew(line, last_us);
            }
            ("acquire", "unknown") => leases.push(Lease::new(line)),
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

impl Lease {
    fn new(line: &Line) -> Self {
        let is_known = line.outcome == "granted";
        Self {
            owner: line.owner.expect("a lease has an owner"),
            fencing_token: line.fencing_token,
            earliest_us: if is_known { 0 } else { line.called_us + ttl_us(line) },
            latest_us: is_known.then_some(0),
            known_us: line.answered_us,
            release_us: u64::MAX,
            is_released: false,
        }
    }
}
