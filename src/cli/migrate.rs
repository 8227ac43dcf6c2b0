//! `session-lock migrate`: creates the tables that are missing.

use std::ffi::OsString;

use super::{Failure, config, exit_status, print, store};
use crate::db::MESSAGE_TABLE;
use crate::http::Config;

pub fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    migrate(&config(arguments)?)
}

pub fn migrate(config: &Config) -> Result<(), Failure> {
    let failure =
        |why| Failure::new(exit_status::FAILED, format!("cannot create what is missing: {why}"));
    let migrated = store(config).migrate().map_err(failure)?;
    for statement in &migrated.sql {
        print(format_args!("{statement};"));
    }
    let Some((table, cause)) = migrated.failed else {
        print(format_args!(
            "{} and {MESSAGE_TABLE} are there; session-lock check tells whether they will do",
            config.table
        ));
        return Ok(());
    };
    let mut why = format!("{table}: {cause}");
    if !migrated.sql.is_empty() {
        why += "; let an administrator run the SQL that is printed above";
    }
    for table in migrated.created {
        why = format!("{why}; {table} is new and there");
    }
    Err(failure(why))
}
