//! A request's JSON object. Each field is taken by its name. An unknown or repeated field is
//! refused, so that a typo never silently changes a lease.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::lease::{Id, Message, MessageId, OwnerToken, RESULT_MAX_BYTES, Session, Ttl};

/// What is wrong with a request, as a sentence.
#[derive(Debug)]
pub struct Invalid(pub String);

impl Invalid {
    /// The error for a wrong field or parameter.
    pub fn field(name: &str, wrong: impl AsRef<str>) -> Self {
        Self(format!("{name} {}", wrong.as_ref()))
    }
}

/// The fields that were not taken yet, each as its JSON text.
pub struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields: Vec<(String, &RawValue)> = Vec::new();
        while let Some((name, value)) = map.next_entry()? {
            if fields.iter().any(|(other, _)| *other == name) {
                return Err(de::Error::custom(format!("{name:?} occurs twice")));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

/// How an id is read: as one that can have a lease, or as any id that may be stored.
pub type IdReader = fn(&str) -> Result<Id, &'static str>;

impl<'a> Fields<'a> {
    /// Reads a request's body.
    pub fn read(body: &'a [u8]) -> Result<Self, Invalid> {
        serde_json::from_slice(body)
            .map_err(|error| Invalid(format!("the body must be a JSON object: {error}")))
    }

    /// The JSON text of a field; `null` counts as absent.
    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.swap_remove(at).1.get()).filter(|json| *json != "null")
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Invalid> {
        let text = self.take(name).map(serde_json::from_str).transpose();
        text.map_err(|_| Invalid::field(name, "must be a string"))
    }

    /// A field that is a string, or an integer, which stands for its decimal digits: the ids of
    /// Telegram and Chatwoot are integers.
    fn id_text(&mut self, name: &str) -> Result<Option<String>, Invalid> {
        let Some(json) = self.take(name) else { return Ok(None) };
        let digits = json.strip_prefix('-').unwrap_or(json);
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Some(json.to_owned()));
        }
        let text = serde_json::from_str(json);
        text.map(Some).map_err(|_| Invalid::field(name, "must be a string or an integer"))
    }

    /// A field that is a whole number. `30000.0` is accepted: languages without integers write it.
    pub fn integer(&mut self, name: &str) -> Result<Option<u64>, Invalid> {
        let Some(json) = self.take(name) else { return Ok(None) };
        let whole = json.split_once('.').filter(|(_, fraction)| {
            !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0')
        });
        let number = serde_json::from_str(whole.map_or(json, |(whole, _)| whole));
        let wrong = "must be a whole number, not negative and without quotes";
        number.map(Some).map_err(|_| Invalid::field(name, wrong))
    }

    /// `ttl_ms`, or its default.
    pub fn ttl(&mut self, max_hold_ms: u64) -> Result<Ttl, Invalid> {
        match self.integer("ttl_ms")? {
            Some(ttl_ms) => {
                Ttl::new(ttl_ms, max_hold_ms).map_err(|wrong| Invalid::field("ttl_ms", wrong))
            }
            None => Ok(Ttl::default_within(max_hold_ms)),
        }
    }

    /// A field that may be `true` or absent.
    pub fn flag(&mut self, name: &str) -> Result<bool, Invalid> {
        match self.take(name) {
            None => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Invalid::field(name, "must be true, or absent")),
        }
    }

    fn id(&mut self, name: &str, read: IdReader) -> Result<Id, Invalid> {
        let text = self.id_text(name)?.ok_or_else(|| Invalid::field(name, "is missing"))?;
        read(&text).map_err(|wrong| Invalid::field(name, wrong))
    }

    /// `id_prospect` and `id_device`.
    pub fn session(&mut self, read: IdReader) -> Result<Session, Invalid> {
        let id_prospect = self.id("id_prospect", read)?;
        let id_device = self.id("id_device", read)?;
        Ok(Session { id_device, id_prospect })
    }

    /// `owner_token`.
    pub fn owner_token(&mut self) -> Result<Option<OwnerToken>, Invalid> {
        let token = self.text("owner_token")?.map(|text| OwnerToken::new(&text));
        let token = token.transpose();
        token.map_err(|wrong| Invalid::field("owner_token", wrong))
    }

    /// `owner_token`, which is required; `missing` is the error text without it.
    pub fn needed_owner_token(&mut self, missing: &str) -> Result<OwnerToken, Invalid> {
        self.owner_token()?.ok_or_else(|| Invalid::field("owner_token", missing))
    }

    /// `message_id`.
    pub fn message_id(&mut self) -> Result<Option<MessageId>, Invalid> {
        let id = self.id_text("message_id")?.map(|text| MessageId::new(&text));
        id.transpose().map_err(|wrong| Invalid::field("message_id", wrong))
    }

    /// `message_id` and its `result`.
    pub fn message(&mut self) -> Result<Option<Message>, Invalid> {
        let id = self.message_id()?;
        let result = self.take("result");
        if result.is_some_and(|result| result.len() > RESULT_MAX_BYTES) {
            let wrong =
                format!("may have at most {RESULT_MAX_BYTES} bytes: a reference, not a reply");
            return Err(Invalid::field("result", wrong));
        }
        if id.is_none() && result.is_some() {
            return Err(Invalid::field("result", "goes with a message_id"));
        }
        let result = result.map(str::to_owned);
        Ok(id.map(|id| Message { id, result }))
    }

    /// Refuses fields that were not taken.
    pub fn finish(self) -> Result<(), Invalid> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Invalid::field(&format!("{name:?}"), "is not a field of this request"))
            }
        }
    }
}
