//! `session-lock health`: checks whether the service answers, for the health check of a container.

use std::ffi::OsString;

use super::client::{RequestError, connect};
use super::{Failure, exit_status, print};
use crate::http::SELF_CHECK_TIMEOUT;

pub const HELP: &str = "[--url URL]
      check whether the service answers (status 0 or 1), regardless of its database";

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let (client, _) = connect(arguments, &[], &[])?;
    client.get("/healthz", SELF_CHECK_TIMEOUT, "status").map_err(failed)?;
    print("ok");
    Ok(())
}

/// The health check of a container must exit with status 0 or 1; other statuses are reserved.
fn failed(error: RequestError) -> Failure {
    Failure { status: exit_status::FAILED, ..error.into() }
}
