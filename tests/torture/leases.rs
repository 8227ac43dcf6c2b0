//! When the leases of a session end by themselves: the one thing in a history that nobody asks for.

use std::collections::{BTreeMap, HashMap};

use crate::lines::Line;
use crate::spec::{Action, Owner};

/// A lease that its owner does not renew ends at most this much later than the answer says: its
/// expiry is stored in whole seconds, rounded up.
const ROUNDED_UP_US: u64 = 1_000_000;

/// A write of an unknown outcome takes effect within this time after the last word about it: a
/// request ends within 10 s, and no fault lasts longer than 4 s.
pub const LATE_US: u64 = 30_000_000;

/// The ttl of an acquire that names none.
const TTL_DEFAULT_MS: u64 = 30_000;

/// A lease may expire from `earliest_us`, and has expired by `latest_us`, if that is known.
#[derive(Clone, Debug)]
pub struct Expiry {
    pub owner: Owner,
    pub fencing_token: Option<u64>,
    pub granted_us: u64,
    pub earliest_us: u64,
    pub latest_us: Option<u64>,
}

impl Expiry {
    pub fn action(&self) -> Action {
        Action::Expire { owner: self.owner, fencing_token: self.fencing_token }
    }

    /// A new ttl, or the rest of the old one. It begins after all that is known so far, or
    /// beside it.
    fn renew(&mut self, line: &Line, last_us: u64) {
        let ttl_us = line.ttl_ms.unwrap_or(TTL_DEFAULT_MS) * 1_000;
        let left_us = line.remaining_ms.map_or(ttl_us, |left_ms| left_ms * 1_000);
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
pub fn expiries(lines: &[Line]) -> Vec<Expiry> {
    let mut of_owner: BTreeMap<Owner, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        if let Some(owner) = line.owner {
            of_owner.entry(owner).or_default().push(line);
        }
    }
    of_owner.into_values().flat_map(|lines| of_one_owner(&lines)).collect()
}

fn of_one_owner(lines: &[&Line]) -> Vec<Expiry> {
    let mut expiries: Vec<Expiry> = Vec::new();
    let mut granted: HashMap<u64, usize> = HashMap::new();
    // An owner token has one lease after the other.
    let mut newest = None;
    let mut last_us = 0;
    for line in lines {
        match (line.operation.as_str(), line.outcome.as_str()) {
            ("acquire", "granted") => {
                let token = line.fencing_token.expect("a lease has a fencing token");
                let number = *granted.entry(token).or_insert_with(|| {
                    expiries.push(Expiry::new(line));
                    expiries.len() - 1
                });
                newest = Some(number);
                expiries[number].renew(line, last_us);
            }
            ("acquire", "unknown") => expiries.push(Expiry::new(line)),
            ("renew", _) => {
                if let Some(number) = newest {
                    expiries[number].renew(line, last_us);
                }
            }
            _ => {}
        }
        last_us = last_us.max(line.answered_us);
    }
    expiries
}

impl Expiry {
    fn new(line: &Line) -> Self {
        let ttl_us = line.ttl_ms.unwrap_or(TTL_DEFAULT_MS) * 1_000;
        let is_known = line.outcome == "granted";
        Self {
            owner: line.owner.expect("a lease has an owner"),
            fencing_token: line.fencing_token,
            granted_us: line.called_us,
            earliest_us: if is_known { 0 } else { line.called_us + ttl_us },
            latest_us: is_known.then_some(0),
        }
    }
}
