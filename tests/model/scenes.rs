//! What is explored: scenes that are small enough to be explored completely, each with its actors and with
//! what may go wrong in it.

use super::plan::{TTL_US, UNIT_US, Verb};
use super::table::Rules;
use super::world::{Budget, Config, Stored, WorkerConfig};

const WRITE: Verb = Verb::Acquire { reads_first: false };
const READ: Verb = Verb::Acquire { reads_first: true };

const NOTHING: Budget = Budget {
    jumps: 0,
    lost: 0,
    crashes: 0,
    unheard: 0,
    again: 0,
    waits_ended: 0,
    collisions: 0,
    replicas: 0,
    steps_back: 0,
    imports: 0,
};

/// Nobody acts, and nothing goes wrong.
const EMPTY: Config = Config {
    workers: &[],
    olds: &[],
    judges_olds: false,
    operator: None,
    sweeper: None,
    verbs: &[WRITE, READ, Verb::Renew, Verb::Commit, Verb::Release, Verb::Finish],
    max_hold_us: [4 * TTL_US; 2],
    patient: false,
    batches: false,
    stored: &[],
    budget: NOTHING,
    rules: Rules { dropped: None, step_us: UNIT_US, old_ahead_s: TTL_US / 1_000_000 },
    merges: true,
    kills: true,
};

const fn worker(server: u8, session: u8, message: Option<u8>) -> WorkerConfig {
    WorkerConfig { server, session, message, names_message: true }
}

/// One worker at each server.
const TWO: &[WorkerConfig] = &[worker(0, 0, None), worker(1, 0, None)];

/// Likewise, for one message that was delivered twice.
const TWO_OF_ONE_MESSAGE: &[WorkerConfig] = &[worker(0, 0, Some(1)), worker(1, 0, Some(1))];

/// Likewise, for a message each.
const TWO_MESSAGES: &[WorkerConfig] = &[worker(0, 0, Some(1)), worker(1, 0, Some(2))];

/// Two workers at each server.
const FOUR: &[WorkerConfig] =
    &[worker(0, 0, None), worker(0, 0, None), worker(1, 0, None), worker(1, 0, None)];

/// Leases expire at any moment, and are taken over.
pub const EXPIRY: Config = Config {
    workers: TWO,
    sweeper: Some(0),
    stored: &[(0, Stored::Abandoned)],
    verbs: &[WRITE, READ, Verb::Renew, Verb::Release],
    budget: Budget { jumps: 2, ..NOTHING },
    ..EMPTY
};

/// Servers with different longest holds.
pub const MAX_HOLD: Config = Config {
    workers: &[worker(0, 0, None), worker(1, 0, None)],
    max_hold_us: [240 * UNIT_US, 60 * UNIT_US],
    budget: Budget { jumps: 3, ..NOTHING },
    ..EMPTY
};

/// A message that was delivered twice.
pub const MESSAGES: Config =
    Config { workers: TWO_OF_ONE_MESSAGE, budget: Budget { jumps: 2, ..NOTHING }, ..EMPTY };

/// Two messages of one session.
pub const OTHER_MESSAGES: Config =
    Config { workers: TWO_MESSAGES, budget: Budget { jumps: 2, ..NOTHING }, ..EMPTY };

/// Three workers, of which two have the same message.
pub const THREE: Config = Config {
    workers: &[worker(0, 0, Some(1)), worker(1, 0, Some(2)), worker(1, 0, Some(1))],
    verbs: &[WRITE, Verb::Commit, Verb::Finish],
    ..EMPTY
};

/// Workers that name their message only when they commit it.
pub const LATE_MESSAGES: Config = Config {
    workers: &[
        WorkerConfig { names_message: false, ..worker(0, 0, Some(1)) },
        WorkerConfig { names_message: false, ..worker(1, 0, Some(1)) },
    ],
    budget: Budget { jumps: 2, ..NOTHING },
    ..EMPTY
};

/// An old program and an operator write the same row.
pub const NEIGHBOURS: Config = Config {
    workers: TWO_OF_ONE_MESSAGE,
    olds: &[0],
    operator: Some(0),
    verbs: &[WRITE, Verb::Commit, Verb::Release],
    budget: NOTHING,
    ..EMPTY
};

/// Servers lose their connections during writes.
pub const LOST: Config = Config {
    workers: TWO_OF_ONE_MESSAGE,
    operator: Some(0),
    verbs: &[WRITE, Verb::Commit, Verb::Release, Verb::Finish],
    budget: Budget { lost: 1, ..NOTHING },
    ..EMPTY
};

/// Servers crash, and workers that heard nothing ask again.
pub const CRASHES: Config = Config {
    workers: TWO_OF_ONE_MESSAGE,
    budget: Budget { crashes: 1, unheard: 1, again: 1, ..NOTHING },
    ..EMPTY
};

/// Workers ask again although the first request is still under way.
pub const ASKED_TWICE: Config =
    Config { workers: TWO_MESSAGES, budget: Budget { again: 1, jumps: 1, ..NOTHING }, ..EMPTY };

/// Likewise, with each statement and each reply a step of its own.
pub const ASKED_TWICE_UNMERGED: Config =
    Config { merges: false, verbs: &[WRITE, Verb::Commit, Verb::Finish], ..ASKED_TWICE };

/// Two workers at each server.
pub const CROWD: Config = Config {
    workers: FOUR,
    operator: Some(0),
    verbs: &[WRITE, Verb::Renew, Verb::Release],
    ..EMPTY
};

/// Two sessions, in packets for both.
pub const BATCHES: Config = Config {
    workers: &[worker(0, 0, None), worker(0, 1, None), worker(1, 0, None)],
    batches: true,
    verbs: &[WRITE, Verb::Release],
    budget: Budget { jumps: 2, ..NOTHING },
    ..EMPTY
};

/// New rows are given ids of rows of other sessions, which have the same text.
pub const IDS: Config = Config {
    workers: &[worker(0, 0, None), worker(1, 1, None)],
    stored: &[(0, Stored::Garbage), (1, Stored::Garbage)],
    olds: &[0],
    verbs: &[WRITE, READ, Verb::Release],
    budget: Budget { collisions: 1, imports: 1, ..NOTHING },
    ..EMPTY
};

/// Likewise, and an operator releases one of them.
pub const IDS_OF_OLD_PROGRAMS: Config =
    Config { stored: &[(0, Stored::Ahead), (1, Stored::Ahead)], operator: Some(0), ..IDS };

/// Locks are waited for too long, and deadlocks ended.
pub const LOCKS: Config =
    Config { workers: TWO_OF_ONE_MESSAGE, budget: Budget { waits_ended: 2, ..NOTHING }, ..EMPTY };

/// A replica lags and takes no writes, and some packets reach it.
pub const REPLICA: Config = Config {
    workers: &[worker(0, 0, None)],
    operator: Some(0),
    verbs: &[WRITE, READ, Verb::Renew, Verb::Release],
    budget: Budget { replicas: 1, unheard: 1, again: 1, ..NOTHING },
    ..EMPTY
};

/// The database's clock steps back. No promise is made then, but fencing tokens of takeovers rise.
pub const CLOCK: Config = Config {
    workers: &[worker(0, 0, None)],
    stored: &[(0, Stored::Abandoned)],
    budget: Budget { steps_back: 1, ..NOTHING },
    verbs: &[WRITE],
    merges: false,
    ..EMPTY
};

/// Old programs alone.
pub const OLD_PROGRAMS: Config = Config { olds: &[0, 0], ..EMPTY };

/// Larger ones, which take minutes.
pub const LARGE_EXPIRY: Config =
    Config { verbs: EMPTY.verbs, budget: Budget { jumps: 3, ..NOTHING }, ..EXPIRY };
pub const LARGE_NEIGHBOURS: Config =
    Config { verbs: EMPTY.verbs, budget: Budget { jumps: 1, ..NOTHING }, ..NEIGHBOURS };

pub const LARGE_ASKED_TWICE: Config =
    Config { budget: Budget { again: 1, jumps: 1, lost: 1, ..NOTHING }, ..ASKED_TWICE };
pub const LARGE_UNMERGED: Config =
    Config { merges: false, budget: Budget { jumps: 1, ..NOTHING }, ..MESSAGES };

/// What `make prove` explores as well.
pub const LARGE: &[(&str, Config)] = &[
    ("leases expire, with all verbs", LARGE_EXPIRY),
    ("an old program and an operator, with all verbs and time", LARGE_NEIGHBOURS),
    ("the same token asked twice at once, with time and lost connections", LARGE_ASKED_TWICE),
    ("a message delivered twice, without merged steps", LARGE_UNMERGED),
];

/// All scenes, by name.
pub const SCENES: &[(&str, Config)] = &[
    ("leases expire", EXPIRY),
    ("the longest hold", MAX_HOLD),
    ("a message delivered twice", MESSAGES),
    ("two messages", OTHER_MESSAGES),
    ("three workers", THREE),
    ("messages that are named late", LATE_MESSAGES),
    ("an old program and an operator", NEIGHBOURS),
    ("connections are lost", LOST),
    ("servers crash", CRASHES),
    ("two workers at each server", CROWD),
    ("two sessions in one packet", BATCHES),
    ("ids of other rows", IDS),
    ("ids of old programs' rows", IDS_OF_OLD_PROGRAMS),
    ("locks", LOCKS),
    ("a replica that lags", REPLICA),
    ("the clock steps back", CLOCK),
    ("the same token asked twice at once", ASKED_TWICE),
    ("the same token asked twice at once, without merged steps", ASKED_TWICE_UNMERGED),
];
