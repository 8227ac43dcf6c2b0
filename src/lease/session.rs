use std::fmt;

/// Longest id in characters: the width of the production columns.
pub const ID_MAX_CHARS: usize = 255;

/// One half of a session: the bot's number or instance, or the customer's phone number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(String);

impl Id {
    /// An id that can have a lease: 1–255 characters of any language, without control characters,
    /// which are invisible, and without a blank at either end, which collations ignore.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let id = Self::as_stored(text)?;
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err("must have no control characters and no blank at either end");
        }
        Ok(id)
    }

    /// An id for a read or a forced release, which must reach old rows of any spelling.
    pub fn as_stored(text: &str) -> Result<Self, &'static str> {
        match text.chars().count() {
            1..=ID_MAX_CHARS => Ok(Self(text.to_owned())),
            _ => Err("must be 1-255 characters"),
        }
    }

    /// An id that was read from the table.
    pub fn from_column(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One conversation: what a lease is for. Its display form is for log lines and escapes everything
/// unprintable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub id_device: Id,
    pub id_prospect: Id,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prospect, device) = (self.id_prospect.as_str(), self.id_device.as_str());
        write!(f, "id_prospect={prospect:?} id_device={device:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_no_control_characters_and_no_blanks_at_the_ends() {
        let longest = "é".repeat(ID_MAX_CHARS);
        for good in ["6", "a b", "~!'\"\\%_", "Atendimento São Paulo", "Toko 📱", &longest] {
            assert!(Id::new(good).is_ok(), "{good:?}");
        }
        let too_long = "é".repeat(ID_MAX_CHARS + 1);
        for bad in ["", " ", " a", "a ", "é\u{a0}", "a\nb", "a\0b", "\u{7f}", "\u{9f}", &too_long]
        {
            assert!(Id::new(bad).is_err(), "{bad:?}");
        }
    }
}
