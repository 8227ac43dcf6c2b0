//! `session-lock serve`: runs the service.

use std::ffi::OsString;

use super::{Failure, config, exit_status};
use crate::http::{Ending, Server};

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    serve(Server::bind(&config(arguments)?).map_err(Failure::verbatim)?)
}

/// Runs the server until a signal ends it.
pub fn serve(server: Server) -> Result<(), Failure> {
    match server.run() {
        Ending::Stopped => Ok(()),
        Ending::Unusable(findings) => {
            let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
            Err(Failure::verbatim(lines.join("\n")))
        }
        Ending::Failed(error) => Err(Failure::new(exit_status::FAILED, error)),
    }
}
