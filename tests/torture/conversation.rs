//! Conversations whose ids are in several languages, each under every spelling that the table's
//! collation takes for the same: one lock for all of them.

use fastrand::Rng;
use serde_json::Value;

use crate::world::Session;

/// What the ids begin with, of the bot and of the customer: for each language its spellings. The
/// default collations of MariaDB and MySQL ignore case and accents.
const NAMES: [&[(&str, &str)]; 4] = [
    &[("bot", "")],
    &[("São ", "José "), ("SAO ", "jose ")],
    &[("Служба ", "Анна "), ("СЛУЖБА ", "анна ")],
    &[("Toko 📱 ", "Siti 😀 "), ("TOKO 📱 ", "siti 😀 ")],
];

pub struct Conversation {
    spellings: Vec<Session>,
}

impl Conversation {
    /// Conversations of different numbers are different under all their spellings.
    pub fn new(number: usize) -> Self {
        let plain = Session::new();
        let spell = |(device, prospect): &(&str, &str)| Session {
            device: plain.device.replace("bot", device),
            prospect: format!("{prospect}{}", plain.prospect),
        };
        Self { spellings: NAMES[number % NAMES.len()].iter().map(spell).collect() }
    }

    pub fn spellings(&self) -> &[Session] {
        &self.spellings
    }

    /// The fields of a request under any spelling, with these besides.
    pub fn with(&self, rng: &mut Rng, fields: Value) -> Value {
        self.spellings[rng.usize(..self.spellings.len())].with(fields)
    }
}

/// What the bots' ids begin with.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().flatten().map(|(device, _)| *device)
}

/// What the bot's id in this body begins with.
pub fn name_in(body: &Value) -> &'static str {
    let device = body["id_device"].as_str().expect("every body has one");
    names().find(|name| device.starts_with(name)).expect("all ids begin so")
}
