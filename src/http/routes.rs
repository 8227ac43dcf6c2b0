//! The table of routes, and the checks of every route: API token, method, origin.

use std::time::Instant;

use super::api_token::ApiToken;
use super::json::{Fields, Invalid};
use super::lookups::{self, Lookup, PathIds};
use super::origin;
use super::requests::{self, Limits, Parsed};
use super::response::{Refusal, Response};
use crate::queue::QUEUE_TIMEOUT;
use crate::service::{Service, too_slow};

/// Who may use a route.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// Anyone: the route shows no data.
    Open,
    /// Callers with the API token, if one is set.
    Token,
}

#[derive(Clone, Copy)]
enum Handler {
    /// An operation on a session, run in its turn.
    Verb(fn(&Limits, Fields) -> Result<Parsed, Invalid>),
    /// Reads from the database. Is answered at once.
    Read(fn(&Service, &Lookup) -> Result<Response, Refusal>),
    /// Reads many rows from the database.
    List(fn(&Service, &Lookup) -> Result<Response, Refusal>),
    /// Needs no database.
    Local(fn(&Service) -> Response),
}

struct Route {
    /// Its name in the metrics.
    name: &'static str,
    path: &'static str,
    access: Access,
    handler: Handler,
}

/// A path with a device's and a prospect's id.
const LOCK: &str = "/v1/locks/{id_device}/{id_prospect}";

use Access::{Open, Token};
use Handler::{List, Local, Read, Verb};

#[rustfmt::skip]
const ROUTES: [Route; 12] = [
    Route { name: "acquire", path: "/v1/acquire",   access: Token, handler: Verb(requests::acquire) },
    Route { name: "renew",   path: "/v1/renew",     access: Token, handler: Verb(requests::renew) },
    Route { name: "commit",  path: "/v1/commit",    access: Token, handler: Verb(requests::commit) },
    Route { name: "release", path: "/v1/release",   access: Token, handler: Verb(requests::release) },
    Route { name: "locks",   path: "/v1/locks",     access: Token, handler: List(lookups::locks) },
    Route { name: "lock",    path: LOCK,            access: Token, handler: Read(lookups::lock) },
    Route { name: "history", path: "/v1/history",   access: Token, handler: Local(lookups::history) },
    Route { name: "readyz",  path: "/readyz",       access: Open,  handler: Read(lookups::readyz) },
    Route { name: "healthz", path: "/healthz",      access: Open,  handler: Local(lookups::healthz) },
    Route { name: "metrics", path: "/metrics",      access: Token, handler: Local(lookups::metrics) },
    Route { name: "openapi", path: "/openapi.json", access: Token, handler: Local(lookups::openapi) },
    Route { name: "page",    path: "/",             access: Open,  handler: Local(lookups::page) },
];

impl Route {
    /// The route of a path, and the ids in the path, if any, still percent-encoded. Ignores
    /// repeated and trailing slashes.
    fn find(path: &str) -> Option<(&'static Self, Option<PathIds<'_>>)> {
        let is_exact = |route: &&Self| route.path == path && path != LOCK;
        if let Some(route) = ROUTES.iter().find(is_exact) {
            return Some((route, None));
        }
        let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let (path, ids) = match segments[..] {
            ["v1", "locks", device, prospect] => (LOCK.to_owned(), Some((device, prospect))),
            _ => (format!("/{}", segments.join("/")), None),
        };
        let route = ROUTES.iter().find(|route| route.path == path)?;
        Some((route, ids))
    }

    fn methods(&self) -> &'static str {
        match self.handler {
            Verb(_) => "POST, OPTIONS",
            Read(_) | List(_) | Local(_) => "GET, HEAD, OPTIONS",
        }
    }
}

/// Which thread serves a request.
#[derive(Clone, Copy, PartialEq)]
pub enum ServedBy {
    /// A worker.
    Worker,
    /// The lister: a list takes as long as hundreds of leases, so one thread serves all lists.
    Lister,
    /// Any thread.
    AnyThread,
}

/// Which thread serves requests for this target.
pub fn served_by(target: &str) -> ServedBy {
    match Route::find(path_and_query(target).0).map(|(route, _)| route.handler) {
        Some(List(_)) => ServedBy::Lister,
        Some(Local(_)) => ServedBy::AnyThread,
        Some(Verb(_) | Read(_)) | None => ServedBy::Worker,
    }
}

fn path_and_query(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// The parts of a request that routing needs.
pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub authorization: Option<&'a str>,
    /// The `Origin` header: the site of the page that a browser runs.
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    pub body: &'a [u8],
}

/// The result of routing a request.
pub enum Routed {
    /// An operation on a session.
    Parsed(Parsed),
    /// The response.
    Answered(Response),
}

/// Routes requests, with what the handlers need.
pub struct Router {
    pub service: Service,
    pub max_hold_ms: u64,
    pub api_token: Option<ApiToken>,
    /// The address of the page, if it is not the one in the `Host` header.
    pub origin: Option<String>,
}

impl Router {
    /// Finds the route of a request that arrived at `arrived`, and calls its handler. Returns the
    /// route's name in the metrics, and the result.
    pub fn route(&self, request: &Request, arrived: Instant) -> (&'static str, Routed) {
        let mut name = "unknown";
        let routed = self.try_route(request, arrived, &mut name);
        (name, routed.unwrap_or_else(|refusal| Routed::Answered(refusal.into())))
    }

    fn try_route(
        &self,
        request: &Request,
        arrived: Instant,
        name: &mut &'static str,
    ) -> Result<Routed, Refusal> {
        let (path, query) = path_and_query(request.target);
        let found = Route::find(path);
        *name = found.map_or(*name, |(route, _)| route.name);
        if request.method == "OPTIONS" && (found.is_some() || path == "*") {
            let methods = found.map_or("GET, HEAD, POST, OPTIONS", |(route, _)| route.methods());
            return Ok(Routed::Answered(Response::options(methods)));
        }
        if self.service.is_closed() {
            return Err(Refusal::Stopping);
        }
        let access = found.map_or(Token, |(route, _)| route.access);
        let is_admitted =
            self.api_token.as_ref().is_none_or(|token| token.admits(request.authorization));
        if access == Token && !is_admitted {
            return Err(Refusal::Unauthorized);
        }
        let (route, ids) = found.ok_or(Refusal::NotFound)?;
        let lookup = Lookup { session: ids.map(lookups::session).transpose()?, query };
        let methods = route.methods();
        if !methods.split(", ").any(|method| method == request.method) {
            return Err(Refusal::MethodNotAllowed(methods));
        }
        if request.method == "POST" {
            origin::check(request.origin, request.host, self.origin.as_deref())?;
        }
        let is_late = arrived.elapsed() >= QUEUE_TIMEOUT;
        match route.handler {
            Read(_) | List(_) if is_late => Err(too_slow().into()),
            Verb(read) => {
                let limits = Limits { max_hold_ms: self.max_hold_ms, store: self.service.store() };
                Ok(Routed::Parsed(read(&limits, Fields::read(request.body)?)?))
            }
            Read(read) | List(read) => read(&self.service, &lookup).map(Routed::Answered),
            Local(read) => Ok(Routed::Answered(read(&self.service))),
        }
    }
}
