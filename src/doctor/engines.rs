//! Findings that apply only to one kind or version of server.

use super::Verdict::Warning;
use super::facts::Facts;
use super::{Finding, found};

/// The first MariaDB whose waits for a row lock end when they should.
const EXACT_LOCK_WAITS: (u32, u32) = (10, 6);

/// MySQL Group Replication. Before MySQL 8.4, this is the default.
pub fn group(facts: &Facts) -> Vec<Finding> {
    if !facts.has("group_replication_consistency", "EVENTUAL") {
        return vec![];
    }
    let text = "group_replication_consistency is EVENTUAL, with which a new primary may answer before it has every lease that was granted; set this on every member of the group, in my.cnf too";
    let sql = "SET GLOBAL group_replication_consistency = 'BEFORE_ON_PRIMARY_FAILOVER'";
    found(Warning, "group", text, Some(sql.to_owned()))
}

/// Old versions of MariaDB check only once a second whether a wait for a row lock is over.
pub fn lock_waits(facts: &Facts) -> Vec<Finding> {
    let mut parts = facts.version.split('.').map_while(|part| part.parse::<u32>().ok());
    let is_older = parts.next().zip(parts.next()).is_some_and(|found| found < EXACT_LOCK_WAITS);
    if !facts.version.contains("MariaDB") || !is_older {
        return vec![];
    }
    let text = "MariaDB before 10.6 waits up to 2 s, not 1 s, for another program's lock: while a program locks many rows, or the gaps between them, a request can take 15 s, not 10 s, and requests of other sessions can take seconds or end in 503";
    found(Warning, "lock waits", text, None)
}
