//! Decides which spellings of an id are one id. The process follows the table's collations, so that
//! its queues and the table agree.
//!
//! A collation gives each text a weight, and two texts with the same weight are equal. Nearly all
//! ids are ASCII, and under nearly all collations their weight is the sequence of their characters'
//! weights, which the process reads once. It asks the database for any other weight, and remembers
//! it.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::StoreError;
use crate::db::{Connection, Packet, Statement, Table, Value, columns};
use crate::lease::Session;

/// The maximum number of weights that are remembered for each column: all customers of a day with
/// such ids, in a megabyte or two.
const KNOWN_MAX: usize = 10_000;

/// The printable characters of ASCII.
const ASCII: std::ops::RangeInclusive<u8> = b' '..=b'~';

/// A session's name: the weights of its ids, which are the same for all its spellings.
pub type SessionName = (Vec<u8>, Vec<u8>);

/// The spellings of both ids.
#[derive(Default)]
pub struct Spellings {
    prospect: Spelling,
    device: Spelling,
}

#[derive(Default)]
struct Spelling {
    field: &'static str,
    charset: String,
    weight: Statement,
    /// The weights of ASCII characters, unless the collation compares some of them in groups.
    ascii: Option<Vec<Vec<u8>>>,
    known: Mutex<HashMap<String, Vec<u8>>>,
}

impl Spellings {
    /// Asks the database how the table's columns compare.
    pub fn load(connection: &mut Connection, table: &Table) -> mysql::Result<Self> {
        Ok(Self {
            prospect: Spelling::load(connection, "id_prospect", &table.prospect_collation)?,
            device: Spelling::load(connection, "id_device", &table.device_collation)?,
        })
    }

    /// The name of a session, if it is known without the database.
    pub fn known_name(&self, prospect: &str, device: &str) -> Option<SessionName> {
        Some((self.prospect.known(prospect)?, self.device.known(device)?))
    }

    /// The name of a session. Asks the database for weights that are not known.
    pub fn name(
        &self,
        session: &Session,
        connection: &mut Connection,
    ) -> Result<SessionName, StoreError> {
        let prospect = self.prospect.find(session.id_prospect.as_str(), connection)?;
        Ok((prospect, self.device.find(session.id_device.as_str(), connection)?))
    }
}

impl Spelling {
    fn load(
        connection: &mut Connection,
        field: &'static str,
        collation: &str,
    ) -> mysql::Result<Self> {
        let charset = collation.split('_').next().unwrap_or_default();
        let identifiers = [("charset", charset), ("collation", collation)];
        let weight = Statement::new(include_str!("../../sql/lease/weight.sql"), &identifiers);
        let mut packet = Packet::default();
        for character in ASCII {
            let text = char::from(character).to_string();
            weight.write(&mut packet, &[("text", Value::Text(&text))]);
        }
        // Every pair of characters: the collation of a language may compare "ch" or "dz" as one
        // letter.
        let pairs = ASCII.flat_map(|one| ASCII.flat_map(move |other| [one, other]));
        let pairs: String = pairs.map(char::from).collect();
        weight.write(&mut packet, &[("text", Value::Text(&pairs))]);
        let replies = connection.run(&packet).map_err(|failed| failed.error)?;
        let rows = replies.into_iter().filter_map(|reply| reply.rows.into_iter().next());
        let weights = rows.map(|row| Ok(columns::<(Option<Vec<u8>>, Option<bool>)>(row)?.0));
        let mut weights: Vec<_> = weights.collect::<mysql::Result<_>>()?;
        let of_pairs = weights.pop().flatten();
        let ascii: Option<Vec<_>> = weights.into_iter().collect();
        let ascii =
            ascii.filter(|ascii| of_pairs.is_some_and(|whole| weigh(ascii, &pairs) == whole));
        let charset = charset.to_owned();
        Ok(Self { field, charset, weight, ascii, known: Mutex::default() })
    }

    fn known(&self, text: &str) -> Option<Vec<u8>> {
        match &self.ascii {
            Some(ascii) if text.bytes().all(|byte| ASCII.contains(&byte)) => {
                Some(weigh(ascii, text))
            }
            _ => self.known.lock().get(text).cloned(),
        }
    }

    fn find(&self, text: &str, connection: &mut Connection) -> Result<Vec<u8>, StoreError> {
        if let Some(weight) = self.known(text) {
            return Ok(weight);
        }
        let row = connection.query(&self.weight, &[("text", Value::Text(text))])?.pop();
        let (weight, is_storable): (Option<Vec<u8>>, Option<bool>) =
            row.map(columns).transpose()?.unwrap_or_default();
        let Some(weight) = weight.filter(|_| is_storable == Some(true)) else {
            return Err(StoreError::NotStorable(format!(
                "{} has characters that the table's character set {} does not have",
                self.field, self.charset
            )));
        };
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(text.to_owned(), weight.clone());
        Ok(weight)
    }
}

/// The weight of an ASCII text.
fn weigh(ascii: &[Vec<u8>], text: &str) -> Vec<u8> {
    let mut weight = Vec::with_capacity(text.len() * ascii[0].len());
    for byte in text.bytes() {
        weight.extend_from_slice(&ascii[usize::from(byte - ASCII.start())]);
    }
    weight
}
