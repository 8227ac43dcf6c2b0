//! Conversations that no other test knows.

use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// A conversation. Displayed as a WHERE condition.
#[derive(Clone, Debug)]
pub struct Session {
    pub device: String,
    pub prospect: String,
}

impl Session {
    pub fn new() -> Self {
        Self { device: format!("bot{}", next()), prospect: format!("6012{:07}", next()) }
    }

    /// The session's ids with an accented letter, which are equal by the table's collation.
    pub fn accented(&self) -> Self {
        Self { device: self.device.replace("bot", "b\u{f3}t"), ..self.clone() }
    }

    /// The fields of a request: the ids and these fields.
    pub fn with(&self, mut fields: Value) -> Value {
        fields["id_device"] = json!(self.device);
        fields["id_prospect"] = json!(self.prospect);
        fields
    }

    pub fn path(&self) -> String {
        let encode =
            |id| percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        format!("/v1/locks/{}/{}", encode(&self.device), encode(&self.prospect))
    }
}

impl Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id_device = '{}' AND id_prospect = '{}'", self.device, self.prospect)
    }
}

/// A number that this process has not used yet.
pub fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
