use std::time::Duration;

use super::OwnerToken;

/// Longest message id: the width of the column. Providers' ids have about 30 to 130 characters.
pub const MESSAGE_ID_MAX_CHARS: usize = 255;

/// Longest result of an answered message, in bytes: enough for a reference to the reply, such as
/// its id at the provider, but not for the reply itself.
pub const RESULT_MAX_BYTES: usize = 512;

/// The provider's id of the message that a lease is for. Ids compare byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageId(String);

impl MessageId {
    /// An id of 1–255 printable ASCII characters.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if printable && (1..=MESSAGE_ID_MAX_CHARS).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1-255 printable ASCII characters")
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An answered message, with a result that a later delivery of the message is given.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: MessageId,
    /// JSON text of at most [`RESULT_MAX_BYTES`], returned byte for byte.
    pub result: Option<String>,
}

/// The record of an answered message, as every caller may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub committed_ago: Duration,
    pub result: Option<String>,
}

/// The record of an answered message, as it was read.
pub struct StoredRecord {
    owner_token: Vec<u8>,
    pub record: Record,
}

impl StoredRecord {
    pub fn new(owner_token: Vec<u8>, age_us: i64, result: Option<Vec<u8>>) -> Self {
        let committed_ago = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
        // The API accepts only JSON, which is UTF-8.
        let result = result.and_then(|result| String::from_utf8(result).ok());
        Self { owner_token, record: Record { committed_ago, result } }
    }

    pub fn is_by(&self, owner_token: &OwnerToken) -> bool {
        self.owner_token == owner_token.secret().as_bytes()
    }
}
