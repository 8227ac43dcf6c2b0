use super::row::Row;
use super::{FencingToken, Holder, Session, Snapshot};

/// End a lease without its owner token: an operator's release.
#[derive(Clone, Debug)]
pub struct Force {
    pub session: Session,
    pub fencing_token: Option<FencingToken>,
}

/// The answer to a [`Force`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    Released(Holder),
    /// The session is free, or its lease has another fencing token.
    NotHeld,
}

/// What a forced release does after a read.
pub(crate) enum ForceStep {
    Answer(Forced),
    /// Delete this row if it has not changed.
    Delete(Row),
}

impl Force {
    /// Decides after a read. `tried` is the row that an earlier, lost packet was to delete.
    pub(crate) fn after_read(&self, read: Snapshot, tried: Option<&Row>) -> ForceStep {
        let row = read.row.filter(|row| {
            let fencing_token = row.lease.as_ref().map(|lease| lease.fencing_token);
            row.remaining().is_some()
                && (self.fencing_token.is_none() || self.fencing_token == fencing_token)
        });
        match (row, tried) {
            // The lease still exists, renewed or not: the lost packet changed nothing.
            (Some(row), Some(tried)) if is_same_lease(&row, tried) => ForceStep::Delete(row),
            // The lease has ended. If another lease holds the session now, the operator did not
            // mean that one.
            (_, Some(tried)) => ForceStep::Answer(Forced::Released(tried.holder())),
            (Some(row), None) => ForceStep::Delete(row),
            (None, None) => ForceStep::Answer(Forced::NotHeld),
        }
    }
}

fn is_same_lease(one: &Row, other: &Row) -> bool {
    match (&one.lease, &other.lease) {
        (None, None) => one.stored == other.stored,
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::cases::*;

    #[test]
    fn a_forced_release_deletes_only_the_lease_that_is_named() {
        let live = || lease(OTHER, BEFORE_US, 1_000);
        let renewed = || lease(OTHER, BEFORE_US, 20_000);
        let next = || lease(OWNER, NOW_US, 20_000);
        for (row, fencing_token, tried, expected) in [
            (live(), None, None, "delete"),
            (live(), Some(BEFORE_US), None, "delete"),
            (live(), Some(NOW_US), None, "not held"),
            (foreign(Some(1_000)), None, None, "delete"),
            (foreign(Some(1_000)), Some(BEFORE_US), None, "not held"),
            (lease(OTHER, BEFORE_US, 0), None, None, "not held"),
            (foreign(None), None, None, "not held"),
            (None, None, None, "not held"),
            // An earlier packet was lost.
            (None, None, live(), "released"),
            (next(), None, live(), "released"),
            (foreign(Some(1_000)), None, live(), "released"),
            (renewed(), None, live(), "delete"),
            (foreign(Some(1_000)), None, foreign(Some(2_000)), "delete"),
        ] {
            let fencing_token = fencing_token.map(FencingToken);
            let force = Force { session: session(), fencing_token };
            let step = match force.after_read(read(row, None, 0), tried.as_ref()) {
                ForceStep::Delete(_) => "delete",
                ForceStep::Answer(Forced::Released(_)) => "released",
                ForceStep::Answer(Forced::NotHeld) => "not held",
            };
            assert_eq!(step, expected);
        }
    }
}
