//! What is known of the lock table and the table of messages.

/// Where answered messages are recorded, in a table of our own.
pub const MESSAGE_TABLE: &str = "session_lock_message";

/// What is known of the lock table once it was looked at.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    /// Its primary key's name: `id_sessionX` or a sister's.
    pub key: String,
    pub session_key: String,
    pub max_key: u64,
    /// The AUTO_INCREMENT id that is given next.
    pub next_id: u64,
    pub has_triggers: bool,
    pub device_case: LetterCase,
    pub prospect_case: LetterCase,
}

impl Table {
    /// The names that statements have places for.
    pub fn names(&self) -> [(&'static str, &str); 3] {
        [("table", &self.name), ("key", &self.key), ("session_key", &self.session_key)]
    }

    /// One spelling of a session's ids for all that the table takes for the same.
    pub fn name(&self, prospect: &str, device: &str) -> (String, String) {
        (self.prospect_case.fold(prospect), self.device_case.fold(device))
    }
}

/// Whether a column's collation makes a difference between spellings in other letter case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterCase {
    /// It makes none, as in production.
    Ignored,
    /// They are two ids.
    Distinguished,
}

impl LetterCase {
    /// One spelling for all that the column takes for the same.
    pub fn fold(self, id: &str) -> String {
        match self {
            Self::Ignored => id.to_lowercase(),
            Self::Distinguished => id.to_owned(),
        }
    }
}
