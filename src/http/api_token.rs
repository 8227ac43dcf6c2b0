//! The API token, which protects the routes that show or change data.

use subtle::ConstantTimeEq;

/// The bearer token that callers must present. It has no `Debug`, so that no log shows it.
#[derive(Clone)]
pub struct ApiToken(String);

impl ApiToken {
    /// A token that an HTTP header can carry.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("must not be empty; leave it out to serve without a token".to_owned())
        } else if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be printable ASCII without blanks".to_owned())
        }
    }

    /// Whether a request with this `Authorization` header may pass.
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        let presented = authorization.and_then(|header| header.split_once(' '));
        presented.is_some_and(|(scheme, presented)| {
            scheme.eq_ignore_ascii_case("bearer") && self.accepts(presented.trim())
        })
    }

    /// Whether the caller presented this token. The comparison takes the same time for every token
    /// of the right length.
    fn accepts(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_api_token_is_accepted() {
        let token = ApiToken::new("abc").unwrap();
        assert!(token.accepts("abc"));
        for wrong in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!token.accepts(wrong), "{wrong:?}");
        }
    }
}
