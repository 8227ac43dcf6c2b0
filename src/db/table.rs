//! The lock table and the message table.

/// The table of answered messages, which only this program uses.
pub const MESSAGE_TABLE: &str = "session_lock_message";

/// The lock table, as `doctor` found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    /// The column of the primary key: `id_sessionX` in production.
    pub key: String,
    /// The unique key on a session's ids.
    pub session_key: String,
    /// The highest value of the primary key.
    pub max_key: u64,
    /// The next AUTO_INCREMENT id.
    pub next_id: u64,
    pub has_triggers: bool,
    pub device_collation: String,
    pub prospect_collation: String,
}

impl Table {
    /// The identifiers that replace the names in braces in the files of `sql/`.
    pub fn names(&self) -> [(&'static str, &str); 3] {
        [("table", &self.name), ("key", &self.key), ("session_key", &self.session_key)]
    }

    /// Whether the same statements fit both tables.
    pub fn is_like(&self, other: &Self) -> bool {
        *self == Self { next_id: self.next_id, ..other.clone() }
    }

    /// The share of ids that are used up, from 0 to 1.
    #[allow(clippy::cast_precision_loss)] // A share needs no more digits.
    pub fn ids_used(&self) -> f64 {
        self.next_id.saturating_sub(1) as f64 / self.max_key as f64
    }
}
