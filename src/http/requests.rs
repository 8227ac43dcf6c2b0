//! The requests of the four verbs, read from their fields.

use std::time::Duration;

use super::json::{Fields, Invalid};
use crate::lease::{
    Acquire, Commit, FencingToken, Force, Id, MessageId, OwnerToken, Release, Renew, TokenOrigin,
};
use crate::store::{Operation, Store};

/// Longest `wait_ms`. Webhook providers give up after about 30 s, and send again.
pub const WAIT_MAX_MS: u64 = 25_000;

/// What a request asks for.
pub enum Parsed {
    Acquire { acquire: Acquire, wait: Duration },
    Other(Operation),
}

/// The limits for fields that depend on the server.
pub struct Limits<'a> {
    pub max_hold_ms: u64,
    pub store: &'a Store,
}

impl Limits<'_> {
    /// Refuses a message if there is nowhere to record it.
    fn allow_message(&self, message_id: Option<&MessageId>) -> Result<(), Invalid> {
        match message_id.map(|_| self.store.check_message_table()) {
            Some(Err(why)) => Err(Invalid::field("message_id", format!("is refused: {why}"))),
            _ => Ok(()),
        }
    }
}

pub fn acquire(limits: &Limits, mut fields: Fields) -> Result<Parsed, Invalid> {
    let session = fields.session(Id::new)?;
    let ttl = fields.ttl(limits.max_hold_ms)?;
    let wait_ms = fields.integer("wait_ms")?.unwrap_or(0);
    if wait_ms > WAIT_MAX_MS {
        let wrong = format!("must be 0-{WAIT_MAX_MS} milliseconds");
        return Err(Invalid::field("wait_ms", wrong));
    }
    let (owner_token, origin) = match fields.owner_token()? {
        Some(token) => (token, TokenOrigin::Callers),
        None => (OwnerToken::draw(), TokenOrigin::Ours),
    };
    let message_id = fields.message_id()?;
    fields.finish()?;
    limits.allow_message(message_id.as_ref())?;
    let acquire = Acquire { session, owner_token, origin, ttl, message_id };
    Ok(Parsed::Acquire { acquire, wait: Duration::from_millis(wait_ms) })
}

pub fn renew(limits: &Limits, mut fields: Fields) -> Result<Parsed, Invalid> {
    let session = fields.session(Id::new)?;
    let ttl = fields.ttl(limits.max_hold_ms)?;
    let owner_token = fields.needed_owner_token("is missing")?;
    fields.finish()?;
    let max_hold_ms = limits.max_hold_ms;
    Ok(Parsed::Other(Operation::Renew(Renew { session, owner_token, ttl, max_hold_ms })))
}

pub fn commit(limits: &Limits, mut fields: Fields) -> Result<Parsed, Invalid> {
    let session = fields.session(Id::new)?;
    let owner_token = fields.needed_owner_token("is missing")?;
    let message = fields.message()?.ok_or_else(|| Invalid::field("message_id", "is missing"))?;
    fields.finish()?;
    limits.allow_message(Some(&message.id))?;
    Ok(Parsed::Other(Operation::Commit(Commit { session, owner_token, message })))
}

/// A worker's release, or an operator's with `"force":true`.
pub fn release(limits: &Limits, mut fields: Fields) -> Result<Parsed, Invalid> {
    if fields.flag("force")? {
        let session = fields.session(Id::as_stored)?;
        let fencing_token = fields.integer("fencing_token")?.map(FencingToken);
        if fields.owner_token()?.is_some() {
            return Err(Invalid::field("owner_token", "and force: send one of them"));
        }
        fields.finish()?;
        return Ok(Parsed::Other(Operation::Force(Force { session, fencing_token })));
    }
    let session = fields.session(Id::new)?;
    let owner_token =
        fields.needed_owner_token("is missing (or \"force\": true, for an operator)")?;
    let message = fields.message()?;
    fields.finish()?;
    limits.allow_message(message.as_ref().map(|message| &message.id))?;
    Ok(Parsed::Other(Operation::Release(Release { session, owner_token, message })))
}
