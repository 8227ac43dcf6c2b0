//! `session-lock migrate`: creates the tables that are missing.

use std::ffi::OsString;

use super::{Failure, config, exit_status, print, store};
use crate::db::MESSAGE_TABLE;
use crate::http::Config;

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    migrate(&config(arguments)?)
}

pub fn migrate(config: &Config) -> Result<(), Failure> {
    store(config).migrate().map_err(|cause| {
        let error = format!("cannot create what is missing: {cause}");
        Failure::new(exit_status::FAILED, error)
    })?;
    print(format_args!(
        "{} and {MESSAGE_TABLE} are there; session-lock check tells whether they will do",
        config.table
    ));
    Ok(())
}
