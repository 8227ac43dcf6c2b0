//! The exit statuses of all commands. Scripts rely on them.

/// The command did what it was asked to do.
pub const OK: u8 = 0;
/// The command failed, or `check` found a problem.
pub const FAILED: u8 = 1;
/// A command, flag or setting is wrong, or the server rejects the request.
pub const USAGE: u8 = 2;
/// No server answers: `EX_UNAVAILABLE` of sysexits.h.
pub const NO_SERVER: u8 = 69;
/// Another worker holds the session: `EX_TEMPFAIL` of sysexits.h, which means "try again later".
pub const HELD: u8 = 75;
/// `run` cannot start its command. A shell reports this status and the next two in the same way.
pub const CANNOT_START: u8 = 126;
/// `run` cannot find its command.
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the command of `run`.
pub const SIGNAL: i32 = 128;
