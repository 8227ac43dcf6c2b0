//! The table of routes, and what holds for all of them: the API token, methods, origins.

use std::time::Instant;

use prometheus::IntCounterVec;

use super::fields::{Fields, Invalid};
use super::lookups::{self, Lookup};
use super::requests::{self, Limits, Parsed};
use super::response::{Refusal, Response};
use crate::config::ApiToken;
use crate::metrics::{METRICS, Metrics};
use crate::service::{QUEUE_TIMEOUT, Service, too_slow};

/// Who may use a route.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// Anybody: it shows no data.
    Open,
    /// Who has the API token, if there is one.
    Token,
}

enum Handler {
    /// Does something to a session, in its turn. Its outcomes are counted here.
    Verb(fn(&Limits, Fields) -> Result<Parsed, Invalid>, fn(&Metrics) -> &IntCounterVec),
    /// Reads from the database, and is answered at once.
    Read(fn(&Service, &Lookup) -> Result<Response, Refusal>),
    /// Needs no database.
    Local(fn(&Service) -> Response),
}

struct Route {
    /// In the metrics.
    name: &'static str,
    path: &'static str,
    access: Access,
    handler: Handler,
}

/// A path that goes on with a device's and a prospect's id.
const LOCK_PREFIX: &str = "/v1/locks/";

use Access::{Open, Token};
use Handler::{Local, Read, Verb};

#[rustfmt::skip]
const ROUTES: [Route; 11] = [
    Route { name: "acquire", path: "/v1/acquire",   access: Token, handler: Verb(requests::acquire, |metrics| &metrics.acquires) },
    Route { name: "renew",   path: "/v1/renew",     access: Token, handler: Verb(requests::renew, |metrics| &metrics.renews) },
    Route { name: "commit",  path: "/v1/commit",    access: Token, handler: Verb(requests::commit, |metrics| &metrics.commits) },
    Route { name: "release", path: "/v1/release",   access: Token, handler: Verb(requests::release, |metrics| &metrics.releases) },
    Route { name: "locks",   path: "/v1/locks",     access: Token, handler: Read(lookups::locks) },
    Route { name: "lock",    path: LOCK_PREFIX,     access: Token, handler: Read(lookups::lock) },
    Route { name: "readyz",  path: "/readyz",       access: Open,  handler: Read(lookups::readyz) },
    Route { name: "healthz", path: "/healthz",      access: Open,  handler: Local(lookups::healthz) },
    Route { name: "metrics", path: "/metrics",      access: Token, handler: Local(lookups::metrics) },
    Route { name: "openapi", path: "/openapi.json", access: Token, handler: Local(lookups::openapi) },
    Route { name: "page",    path: "/",             access: Open,  handler: Local(lookups::page) },
];

impl Route {
    fn find(path: &str) -> Option<(&'static Self, Option<(&str, &str)>)> {
        let ids = path.strip_prefix(LOCK_PREFIX).and_then(|ids| ids.split_once('/'));
        let ids = ids.filter(|(_, prospect)| !prospect.contains('/'));
        let path = if ids.is_some() { LOCK_PREFIX } else { path };
        let route = ROUTES.iter().find(|route| route.path == path)?;
        (route.path != LOCK_PREFIX || ids.is_some()).then_some((route, ids))
    }

    fn methods(&self) -> &'static str {
        match self.handler {
            Verb(..) => "POST",
            Read(_) | Local(_) => "GET, HEAD",
        }
    }
}

/// A request, as far as it matters here.
pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub authorization: Option<&'a str>,
    /// The `Origin` header: a browser's word for whose page it runs.
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Whether a browser sends it for a page that is not ours: any page that an operator looks at
    /// could otherwise force leases on the operator's own machine.
    fn is_from_elsewhere(&self) -> bool {
        let own = |origin: &str| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some() && authority == self.host
        };
        self.origin.is_some_and(|origin| !own(origin))
    }

    fn has_token(&self, token: &ApiToken) -> bool {
        let presented = self.authorization.and_then(|header| header.split_once(' '));
        presented.is_some_and(|(scheme, presented)| {
            scheme.eq_ignore_ascii_case("bearer") && token.accepts(presented.trim())
        })
    }
}

/// What a request leads to.
pub enum Routed {
    /// Something to do to a session.
    Parsed(Parsed),
    /// It is answered already.
    Answered(Response),
}

/// The name of a target's route in the metrics.
pub fn name(target: &str) -> &'static str {
    let path = target.split('?').next().unwrap_or_default();
    let Some((route, ids)) = Route::find(path) else { return "unknown" };
    match ids.map(|ids| lookups::session(&Lookup { ids: Some(ids), query: "" })) {
        Some(Err(_)) => "unknown",
        _ => route.name,
    }
}

/// What serves all routes.
pub struct Router {
    pub service: Service,
    pub max_hold_ms: u64,
    pub api_token: Option<ApiToken>,
}

impl Router {
    /// Finds a request's route and follows it. The request arrived at `arrived`.
    pub fn route(&self, request: &Request, arrived: Instant) -> Routed {
        self.try_route(request, arrived).unwrap_or_else(|refusal| Routed::Answered(refusal.into()))
    }

    fn try_route(&self, request: &Request, arrived: Instant) -> Result<Routed, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let found = Route::find(path);
        let access = found.map_or(Token, |(route, _)| route.access);
        if access == Token && self.api_token.as_ref().is_some_and(|token| !request.has_token(token))
        {
            return Err(Refusal::Unauthorized);
        }
        let (route, ids) = found.ok_or(Refusal::NotFound)?;
        let lookup = Lookup { ids, query };
        if ids.is_some() {
            // A path that names no session is a wrong path, whatever the method.
            lookups::session(&lookup)?;
        }
        let methods = route.methods();
        if !methods.split(", ").any(|method| method == request.method) {
            return Err(Refusal::MethodNotAllowed(methods));
        }
        if request.method == "POST" && request.is_from_elsewhere() {
            let text = "Origin: a page of another site may not ask this";
            return Err(Refusal::InvalidRequest(text.to_owned()));
        }
        let is_late = arrived.elapsed() >= QUEUE_TIMEOUT;
        match route.handler {
            Verb(_, counters) if is_late => {
                counters(&METRICS).with_label_values(&["failed"]).inc();
                Err(too_slow().into())
            }
            Read(_) if is_late => Err(too_slow().into()),
            Verb(read, _) => {
                let limits = Limits { max_hold_ms: self.max_hold_ms, store: self.service.store() };
                Ok(Routed::Parsed(read(&limits, Fields::read(request.body)?)?))
            }
            Read(read) => read(&self.service, &lookup).map(Routed::Answered),
            Local(read) => Ok(Routed::Answered(read(&self.service))),
        }
    }
}
