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
        |why| Failure::new(exit_status::FAILED, format!("cannot create the missing tables: {why}"));
    let migrated = store(config).migrate().map_err(failure)?;
    for statement in &migrated.sql {
        print(format_args!("{statement};"));
    }
    let Some((table, cause)) = migrated.failed else {
        print(format_args!(
            "{} and {MESSAGE_TABLE} exist; session-lock check says whether they are usable",
            config.table
        ));
        return Ok(());
    };
    let mut why = format!("{table}: {cause}");
    if !migrated.sql.is_empty() {
        why += "; ask an administrator to run the SQL that is printed above";
    }
    for table in migrated.created {
        why = format!("{why}; {table} was created");
    }
    Err(failure(why))
}
