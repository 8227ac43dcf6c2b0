//! Answers of the service, and assertions about them.

use serde_json::{Value, json};

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub json: Value,
    /// The body, byte for byte.
    pub text: String,
    pub retry_after_s: Option<u64>,
}

impl Reply {
    /// The answer, if it was received completely.
    pub fn try_read(
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Self, ureq::Error> {
        let mut response = response?;
        let text = response.body_mut().read_to_string()?;
        let retry_after = response
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap().parse().unwrap());
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        Ok(Self { status: response.status().as_u16(), json, text, retry_after_s: retry_after })
    }

    pub fn number(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap_or_else(|| panic!("{field} in {self:?}"))
    }

    pub fn text(&self, field: &str) -> String {
        self.json[field].as_str().unwrap_or_else(|| panic!("{field} in {self:?}")).to_owned()
    }

    #[track_caller]
    pub fn assert(&self, status: u16, json: &Value) {
        assert_eq!((self.status, &self.json), (status, json));
    }

    /// Asserts a grant of this kind.
    #[track_caller]
    pub fn assert_granted(&self, how: &str) {
        assert_eq!((self.status, &self.json["how"]), (200, &json!(how)), "{self:?}");
    }

    #[track_caller]
    pub fn assert_held(&self) {
        assert_eq!((self.status, &self.json["reason"]), (409, &json!("held")), "{self:?}");
    }

    /// Asserts that the message is already answered.
    #[track_caller]
    pub fn assert_duplicate(&self, message_id: &str) {
        assert_eq!(
            (self.status, &self.json["reason"], &self.json["message_id"]),
            (409, &json!("duplicate"), &json!(message_id)),
            "{self:?}"
        );
        assert_eq!(self.retry_after_s, None, "asking again is of no use");
    }

    #[track_caller]
    pub fn assert_committed(&self, how: &str) {
        self.assert(200, &json!({"committed": true, "how": how}));
    }

    /// Asserts that the lease is lost, so the request was not `released`, `renewed` or `committed`.
    #[track_caller]
    pub fn assert_lost(&self, done: &str) {
        self.assert(409, &json!({done: false, "reason": "lost"}));
    }

    /// Asserts that nothing was released.
    #[track_caller]
    pub fn assert_refused_or_lost(&self) {
        assert!(matches!(self.status, 409 | 503), "{self:?}");
    }

    /// Asserts a refusal with this code. Returns its message.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) -> String {
        assert_eq!((self.status, &self.json["error"]["code"]), (status, &json!(code)), "{self:?}");
        let message = self.json["error"]["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{self:?}");
        message.to_owned()
    }
}
