use std::fmt;

/// Digits of an owner token: enough that it cannot be guessed, and few enough that MySQL and
/// MariaDB still read the stored lease as a datetime. Part of the stored form, so it can never
/// change.
pub const OWNER_TOKEN_DIGITS: usize = 20;

/// The number of possible owner tokens.
const OWNER_TOKENS: u128 = 10_u128.pow(20);

/// Proof of ownership, drawn anew for every lease. Display and debug output show only the last four
/// digits, so that no log contains the token. Only [`OwnerToken::secret`] returns it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OwnerToken(String);

impl OwnerToken {
    /// Draws a token from the system's random numbers. Panics if there are none: tokens that can be
    /// guessed protect nothing.
    pub fn draw() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system gives random numbers");
        let number = u128::from_ne_bytes(bytes) % OWNER_TOKENS;
        Self(format!("{number:0OWNER_TOKEN_DIGITS$}"))
    }

    /// A token that the caller has drawn.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.len() == OWNER_TOKEN_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be a string of 20 decimal digits")
        }
    }

    /// All 20 digits: only for the database and for the owner's answer.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[OWNER_TOKEN_DIGITS - 4..])
    }
}

impl fmt::Debug for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerToken(…{self})")
    }
}

/// Who drew an owner token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// The caller, who may have used it before.
    Callers,
    /// This program, for this request.
    Ours,
}

/// Rises with every new lease of a session: the database clock's microseconds since 1970 at the
/// grant. Public; a resource that remembers the highest one so far can refuse a late worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FencingToken(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_owner_tokens_are_valid_and_differ() {
        let drawn: Vec<_> = (0..1_000).map(|_| OwnerToken::draw()).collect();
        for (n, token) in drawn.iter().enumerate() {
            assert_eq!(OwnerToken::new(token.secret()).as_ref(), Ok(token));
            assert!(!drawn[..n].contains(token));
        }
        assert!(drawn.iter().any(|token| !token.secret().starts_with('0')));
    }

    #[test]
    fn an_owner_token_shows_only_its_last_four_digits() {
        let token = OwnerToken::new("48210000000000000007").unwrap();
        assert_eq!(format!("{token} {token:?}"), "0007 OwnerToken(…0007)");
    }
}
