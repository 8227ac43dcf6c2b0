//! The HTTP interface: a request's bytes in, a status and JSON out. Knows no listener and no
//! database; what each answer means is in the README.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use log::{info, warn};
use percent_encoding::percent_decode_str;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::config::ApiToken;
use crate::lease::{
    Acquired, FencingToken, Forced, HOLD_MS, Holder, Holding, How, Id, Lease, OwnerToken, Released,
    Session, TTL_MAX_MS, Ttl,
};
use crate::store::{Answer, Operation, Store, StoreError};

/// Longest body of a request. Ids, tokens and numbers fit several times over, and the listener
/// reads a body of this size in one go.
pub const BODY_MAX_BYTES: usize = 1024;

/// `Retry-After` of a held session never says more, however long the lease: its holder may
/// release it at any time.
const RETRY_AFTER_MAX_S: u64 = 30;

/// `Retry-After` when the database is not available: most failures are over in a second or two.
const RETRY_AFTER_UNAVAILABLE_S: u64 = 1;

/// A row dated further ahead than its kind explains is worth a warning; clocks may differ by this.
const AHEAD_TOLERANCE: Duration = Duration::from_secs(5);

/// A request, as far as it matters here.
pub struct Request<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path, with the query if there is one.
    pub target: &'a str,
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The body, at most [`BODY_MAX_BYTES`].
    pub body: &'a [u8],
    /// Who asks, as far as the listener knows.
    pub peer: Option<SocketAddr>,
}

/// A response: JSON, with the few headers that depend on the answer.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
    /// Seconds for `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// Methods for `Allow`.
    pub allow: Option<&'static str>,
}

impl Response {
    fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            body,
            retry_after_s: None,
            allow: None,
        }
    }
}

/// A request that gets no answer about leases.
#[derive(Debug)]
pub enum Refusal {
    /// Malformed: 400, and what is wrong.
    InvalidRequest(String),
    /// Without the API token: 401.
    Unauthorized,
    /// No such path: 404.
    NotFound,
    /// Not with this method: 405, and with which.
    MethodNotAllowed(&'static str),
    /// Without a length: 411.
    LengthRequired,
    /// Longer than [`BODY_MAX_BYTES`]: 413.
    TooLarge,
    /// A bug of ours: 500.
    Internal,
    /// The database is not there, or not in time: 503. Whoever was refused a lease whose fate is
    /// unknown is given its owner token, to ask again with.
    Unavailable(String, Option<OwnerToken>),
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let (status, code, message) = match &refusal {
            Refusal::InvalidRequest(message) => (400, "invalid_request", message.as_str()),
            Refusal::Unauthorized => (
                401,
                "unauthorized",
                "send the header Authorization: Bearer TOKEN, with the server's API token",
            ),
            Refusal::NotFound => (
                404,
                "not_found",
                "there is no such path; the README has a table of them",
            ),
            Refusal::MethodNotAllowed(_) => (
                405,
                "method_not_allowed",
                "this path has another method; see the Allow header",
            ),
            Refusal::LengthRequired => (
                411,
                "length_required",
                "send the body with a Content-Length, not chunked",
            ),
            Refusal::TooLarge => (413, "too_large", "the body may have 1024 bytes at most"),
            Refusal::Internal => (
                500,
                "internal",
                "a bug in session-lock; its log has a line about it",
            ),
            Refusal::Unavailable(message, _) => (503, "unavailable", message.as_str()),
        };
        let mut response = Self::new(status, json!({"error": {"code": code, "message": message}}));
        match refusal {
            Refusal::MethodNotAllowed(allow) => response.allow = Some(allow),
            Refusal::Unavailable(_, owner_token) => {
                response.retry_after_s = Some(RETRY_AFTER_UNAVAILABLE_S);
                if let Some(token) = owner_token {
                    response.body["owner_token"] = json!(token.secret());
                }
            }
            _ => {}
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string(), None)
    }
}

/// The interface to a store.
pub struct Api {
    store: Store,
    max_hold_ms: u64,
    token: Option<ApiToken>,
}

enum Route {
    Acquire,
    Release,
    Lock(Session),
    Healthz,
    Readyz,
}

impl Route {
    fn find(path: &str) -> Result<Self, Refusal> {
        match path {
            "/v1/acquire" => Ok(Self::Acquire),
            "/v1/release" => Ok(Self::Release),
            "/healthz" => Ok(Self::Healthz),
            "/readyz" => Ok(Self::Readyz),
            _ => {
                let ids = path
                    .strip_prefix("/v1/locks/")
                    .and_then(|ids| ids.split_once('/'));
                let (device, prospect) = ids
                    .filter(|(_, id)| !id.contains('/'))
                    .ok_or(Refusal::NotFound)?;
                Ok(Self::Lock(Session {
                    id_device: decoded_id("id_device", device)?,
                    id_prospect: decoded_id("id_prospect", prospect)?,
                }))
            }
        }
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Acquire | Self::Release => "POST",
            Self::Lock(_) | Self::Healthz | Self::Readyz => "GET, HEAD",
        }
    }
}

fn decoded_id(name: &str, encoded: &str) -> Result<Id, Refusal> {
    let decoded = percent_decode_str(encoded).decode_utf8();
    let decoded = decoded.map_err(|_| invalid(name, "is not UTF-8 once percent-decoded"))?;
    Id::as_stored(&decoded).map_err(|wrong| invalid(name, wrong))
}

impl Api {
    /// The interface to this store.
    #[must_use]
    pub fn new(store: Store, max_hold_ms: u64, token: Option<ApiToken>) -> Self {
        Self {
            store,
            max_hold_ms,
            token,
        }
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Answers a request.
    pub fn answer(&self, request: &Request) -> Response {
        self.try_answer(request).unwrap_or_else(Response::from)
    }

    fn try_answer(&self, request: &Request) -> Result<Response, Refusal> {
        let path = request.target.split('?').next().unwrap_or_default();
        if !matches!(path, "/healthz" | "/readyz") {
            self.authorize(request)?;
        }
        let route = Route::find(path)?;
        if !route
            .methods()
            .split(", ")
            .any(|method| method == request.method)
        {
            return Err(Refusal::MethodNotAllowed(route.methods()));
        }
        match route {
            Route::Acquire => self.acquire(Fields::read(request.body)?),
            Route::Release => self.release(Fields::read(request.body)?, request.peer),
            Route::Lock(session) => self.look(&session),
            Route::Healthz => Ok(Response::new(200, json!({"status": "ok"}))),
            Route::Readyz => {
                self.store.ready()?;
                Ok(Response::new(200, json!({"status": "ready"})))
            }
        }
    }

    fn authorize(&self, request: &Request) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let presented = request
            .authorization
            .and_then(|header| header.split_once(' '));
        match presented {
            Some((scheme, presented))
                if scheme.eq_ignore_ascii_case("bearer") && token.accepts(presented.trim()) =>
            {
                Ok(())
            }
            _ => Err(Refusal::Unauthorized),
        }
    }

    fn acquire(&self, mut fields: Fields) -> Result<Response, Refusal> {
        let session = fields.session(Id::new)?;
        let ttl = match fields.integer("ttl_ms")? {
            Some(ttl_ms) => {
                Ttl::new(ttl_ms, self.max_hold_ms).map_err(|wrong| invalid("ttl_ms", wrong))?
            }
            None => Ttl::default_within(self.max_hold_ms),
        };
        let owner_token = fields.owner_token()?.unwrap_or_else(OwnerToken::draw);
        fields.finish()?;
        let operation = Operation::Acquire {
            session: session.clone(),
            owner_token: owner_token.clone(),
            ttl,
        };
        match self.run(operation) {
            Ok(Answer::Acquire(Acquired::Granted(lease))) => granted(&session, &lease),
            Ok(Answer::Acquire(Acquired::Held(holding))) => Ok(held(&session, &holding)),
            Ok(_) => Err(Refusal::Internal),
            Err(error @ StoreError::Unsettled(_)) => {
                Err(Refusal::Unavailable(error.to_string(), Some(owner_token)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn release(&self, mut fields: Fields, peer: Option<SocketAddr>) -> Result<Response, Refusal> {
        if !fields.flag("force")? {
            let session = fields.session(Id::new)?;
            let owner_token = fields.owner_token()?;
            fields.finish()?;
            let owner_token = owner_token.ok_or_else(|| {
                invalid(
                    "owner_token",
                    "is missing (or \"force\": true, for an operator)",
                )
            })?;
            return match self.run(Operation::Release {
                session: session.clone(),
                owner_token,
            })? {
                Answer::Release(Released::Released) => {
                    info!("Session lock released and cleaned up successfully {session}");
                    Ok(Response::new(200, json!({"released": true})))
                }
                Answer::Release(Released::Lost) => {
                    info!("Session lock release refused: lost {session}");
                    Ok(Response::new(
                        409,
                        json!({"released": false, "reason": "lost"}),
                    ))
                }
                _ => Err(Refusal::Internal),
            };
        }
        let session = fields.session(Id::as_stored)?;
        let fencing_token = fields.integer("fencing_token")?.map(FencingToken);
        fields.finish()?;
        match self.run(Operation::Force {
            session: session.clone(),
            fencing_token,
        })? {
            Answer::Force(Forced::Released(holder)) => {
                let peer = peer.map_or("a local client".to_owned(), |peer| peer.to_string());
                warn!(
                    "Session lock released by force {session} by {peer}, {}",
                    ended(holder)
                );
                Ok(Response::new(200, json!({"released": true})))
            }
            Answer::Force(Forced::NotHeld) => Ok(Response::new(
                409,
                json!({"released": false, "reason": "not_held"}),
            )),
            _ => Err(Refusal::Internal),
        }
    }

    fn look(&self, session: &Session) -> Result<Response, Refusal> {
        let Answer::Look(holding) = self.run(Operation::Look {
            session: session.clone(),
        })?
        else {
            return Err(Refusal::Internal);
        };
        let Some(holding) = holding else {
            return Ok(Response::new(200, json!({"held": false})));
        };
        let (fencing_token, held_ms) = match holding.holder {
            Holder::Leased {
                fencing_token,
                held_ms,
            } => (Some(fencing_token.0), Some(held_ms)),
            Holder::Legacy => (None, None),
        };
        Ok(Response::new(
            200,
            json!({
                "held": true,
                "id_prospect": session.id_prospect.as_str(),
                "id_device": session.id_device.as_str(),
                "remaining_ms": whole_ms(holding.remaining()),
                "held_ms": held_ms,
                "fencing_token": fencing_token,
                "legacy": holding.holder == Holder::Legacy,
            }),
        ))
    }

    fn run(&self, operation: Operation) -> Result<Answer, StoreError> {
        let answer = self.store.run(&[operation]).pop();
        answer.unwrap_or_else(|| Err(StoreError::Unavailable("no answer".to_owned())))
    }
}

fn granted(session: &Session, lease: &Lease) -> Result<Response, Refusal> {
    let Lease {
        owner_token,
        fencing_token: FencingToken(fencing_token),
        how,
        ttl,
        ..
    } = lease;
    if lease.is_worn() {
        // This process was paused since; whoever asks again with the token gets what is left.
        let message = "the lease was granted too long ago to be handed out; repeat the same request with this owner_token";
        return Err(Refusal::Unavailable(
            message.to_owned(),
            Some(owner_token.clone()),
        ));
    }
    let line = match how {
        How::New => "Session lock acquired successfully",
        How::Takeover => "Session lock taken over from a stale holder",
        How::Again => "Session lock acquired again by its holder",
    };
    info!(
        "{line} {session} owner=…{owner_token} fencing_token={fencing_token} ttl_ms={}",
        ttl.as_ms()
    );
    Ok(Response::new(
        200,
        json!({
            "granted": true,
            "owner_token": owner_token.secret(),
            "fencing_token": fencing_token,
            "remaining_ms": whole_ms(lease.remaining()),
            "how": how.word(),
        }),
    ))
}

fn held(session: &Session, holding: &Holding) -> Response {
    let remaining = holding.remaining();
    info!(
        "Session lock held, duplicate rejected {session} remaining_ms={}",
        whole_ms(remaining)
    );
    let explained_ms = if holding.holder == Holder::Legacy {
        HOLD_MS
    } else {
        TTL_MAX_MS
    };
    if remaining > Duration::from_millis(explained_ms) + AHEAD_TOLERANCE {
        warn!(
            "Session lock dated ahead of the database's clock, by a program in another time zone? {session} \
             remaining_ms={}; an operator can force its release",
            whole_ms(remaining)
        );
    }
    let body = json!({"granted": false, "reason": "held", "remaining_ms": whole_ms(remaining), "waiters": 0});
    let retry_after_s = remaining
        .as_millis()
        .div_ceil(1_000)
        .try_into()
        .unwrap_or(u64::MAX);
    Response {
        retry_after_s: Some(retry_after_s.clamp(1, RETRY_AFTER_MAX_S)),
        ..Response::new(409, body)
    }
}

fn ended(holder: Holder) -> String {
    match holder {
        Holder::Leased {
            fencing_token: FencingToken(number),
            held_ms,
        } => {
            format!("fencing_token={number} held_ms={held_ms}")
        }
        Holder::Legacy => "an old program's row".to_owned(),
    }
}

fn whole_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn invalid(field: &str, wrong: impl AsRef<str>) -> Refusal {
    Refusal::InvalidRequest(format!("{field} {}", wrong.as_ref()))
}

/// A request's JSON object. Every field is taken by its name; one that is left over, or there
/// twice, is refused, so that a typo never silently changes a lease.
struct Fields(Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if fields.contains_key(&name) {
                return Err(de::Error::custom(format!("{name:?} is there twice")));
            }
            fields.insert(name, value);
        }
        Ok(Fields(fields))
    }
}

impl Fields {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(body).map_err(|error| {
            Refusal::InvalidRequest(format!("the body must be a JSON object: {error}"))
        })
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.0.shift_remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(name, "must be a string")),
        }
    }

    fn integer(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.0.shift_remove(name) {
            None => Ok(None),
            Some(number) => match number.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(invalid(
                    name,
                    "must be a whole number, not negative and without quotes",
                )),
            },
        }
    }

    /// A field that may be `true` or absent.
    fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.0.shift_remove(name) {
            None => Ok(false),
            Some(Value::Bool(true)) => Ok(true),
            Some(_) => Err(invalid(name, "must be true, or absent")),
        }
    }

    fn id(&mut self, name: &str, read: IdReader) -> Result<Id, Refusal> {
        let text = self
            .text(name)?
            .ok_or_else(|| invalid(name, "is missing"))?;
        read(&text).map_err(|wrong| invalid(name, wrong))
    }

    fn session(&mut self, read: IdReader) -> Result<Session, Refusal> {
        let id_prospect = self.id("id_prospect", read)?;
        let id_device = self.id("id_device", read)?;
        Ok(Session {
            id_device,
            id_prospect,
        })
    }

    fn owner_token(&mut self) -> Result<Option<OwnerToken>, Refusal> {
        let text = self.text("owner_token")?;
        text.map(|text| OwnerToken::new(&text).map_err(|wrong| invalid("owner_token", wrong)))
            .transpose()
    }

    fn finish(self) -> Result<(), Refusal> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid(
                &format!("{name:?}"),
                "is not a field of this request",
            )),
        }
    }
}

type IdReader = fn(&str) -> Result<Id, &'static str>;
