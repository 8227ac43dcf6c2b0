//! `session-lock release --force`: ends a lease without its owner token.

use std::ffi::OsString;

use super::client::{ANSWER_TIMEOUT, RequestError, connect, ids};
use super::{Failure, exit_status, print};

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let (client, flags) = connect(arguments, &["device", "prospect", "fencing-token"], &["force"])?;
    if flags.get("force").is_none() {
        let error = "release needs --force: a worker releases with its owner token, over HTTP";
        return Err(Failure::usage(error));
    }
    let mut request = ids(&flags)?;
    request["force"] = true.into();
    let mut not_held = "not held";
    if let Some(text) = flags.get("fencing-token") {
        let error = |_| Failure::usage("--fencing-token must be a number");
        request["fencing_token"] = text.parse::<u64>().map_err(error)?.into();
        not_held = "not held, or held by another lease";
    }
    client.post("/v1/release", &request, ANSWER_TIMEOUT, "released").map_err(
        |error| match error {
            RequestError::Conflict(_) => Failure::new(exit_status::FAILED, not_held),
            error => error.into(),
        },
    )?;
    print("released");
    Ok(())
}
