//! Guards that are dropped, one by one, and the scene in which that is noticed.

use super::scenes;
use super::table::Guard;
use super::world::Config;

/// The fault, the scene, and what is different in it.
pub type Fault = (&'static str, Config, fn(&mut Config));

macro_rules! faults {
    ($($guard:ident in $scene:ident,)+) => {
        /// Every guard of every statement, but for the owner in `release_answered.sql`: after an acquire of the
        /// session that has written something, the row is that owner's.
        pub const GUARDS: &[Fault] = &[$(
            (stringify!($guard), scenes::$scene, |config| config.rules.dropped = Some(Guard::$guard)),
        )+];
    };
}

faults! {
    AcquireDatesAnyRow in EXPIRY,
    AcquireReplacesChangedRow in EXPIRY,
    AcquireReplacesOtherSession in IDS,
    AcquireDatesBeforeLock in MESSAGES,
    AcquireIgnoresFencingFloor in CLOCK,
    AnsweredKeepsLease in MESSAGES,
    AnsweredByOtherMessage in OTHER_MESSAGES,
    AnsweredReleasesOtherLease in ASKED_TWICE,
    RenewIgnoresOwner in MAX_HOLD,
    RenewIgnoresExpiry in EXPIRY,
    RenewReadsClockEarly in EXPIRY,
    RenewIgnoresMaxHold in MAX_HOLD,
    RenewIsNotCapped in MAX_HOLD,
    ReleaseIgnoresOwner in EXPIRY,
    ReleaseIgnoresExpiry in EXPIRY,
    ReleaseReadsClockEarly in EXPIRY,
    SeveralIgnoreOwners in BATCHES,
    SeveralIgnoreExpiry in BATCHES,
    SeveralBelieveCount in BATCHES,
    DeleteIgnoresBytes in EXPIRY,
    DeleteIgnoresSession in IDS_OF_OLD_PROGRAMS,
    CommitDoesNotLock in NEIGHBOURS,
    CommitIgnoresOwner in MESSAGES,
    CommitIgnoresExpiry in MESSAGES,
    CommitReadsClockEarly in MESSAGES,
    CommitReplacesRecord in LATE_MESSAGES,
    RecordIgnoresCount in MESSAGES,
    RecordReplacesRecord in LATE_MESSAGES,
    ReplicaIsBelieved in REPLICA,
}

/// What is wrong without a statement's guard being dropped.
pub const OTHERS: &[Fault] = &[
    ("a lost connection is not killed", scenes::LOST, |config| config.kills = false),
    ("old programs, which check and then upsert", scenes::OLD_PROGRAMS, |config| {
        config.judges_olds = true;
    }),
];
