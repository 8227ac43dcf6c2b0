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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_id_may_differ() {
        let table = Table {
            name: "t".to_owned(),
            key: "id".to_owned(),
            session_key: "session".to_owned(),
            max_key: 200,
            next_id: 51,
            has_triggers: false,
            device_collation: "utf8mb4_bin".to_owned(),
            prospect_collation: "utf8mb4_bin".to_owned(),
        };
        assert!((table.ids_used() - 0.25).abs() < f64::EPSILON);
        assert!(table.is_like(&Table { next_id: 7, ..table.clone() }));
        assert!(!table.is_like(&Table { has_triggers: true, ..table.clone() }));
        assert_eq!(table.names(), [("table", "t"), ("key", "id"), ("session_key", "session")]);
    }
}
