//! `session-lock serve`: runs the service until SIGTERM or Ctrl-C.

use std::ffi::OsString;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, config, exit_status};
use crate::http::{Ending, Server};

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    serve(Server::bind(&config(arguments)?).map_err(Failure::verbatim)?)
}

/// Runs the server. SIGTERM or Ctrl-C ends it after every accepted request is answered.
pub fn serve(server: Server) -> Result<(), Failure> {
    let signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| {
        Failure::new(exit_status::FAILED, format!("cannot watch for signals: {error}"))
    })?;
    match server.run(signals) {
        Ending::Stopped => Ok(()),
        Ending::Unusable(findings) => {
            let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
            Err(Failure::verbatim(lines.join("\n")))
        }
        Ending::Failed(error) => Err(Failure::new(exit_status::FAILED, error)),
    }
}
