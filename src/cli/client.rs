//! The HTTP client of `list`, `release`, `run` and `health`.

use std::error::Error;
use std::ffi::OsString;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Response;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Body, RequestBuilder};

use self::RequestError::{Conflict, NoServer, Refused};
use super::flags::Flags;
use super::settings::{API_TOKEN_VARIABLE, LISTEN_DEFAULT, listen};
use super::unix::UnixConnector;
use super::{Failure, exit_status};
use crate::net::{Listen, UNIX_PREFIX};

/// Longer than the slowest answer: the longest wait in a queue plus the timeouts of the database.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// A server on the same network accepts a connection within milliseconds, unless it is overloaded.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Client {
    agent: ureq::Agent,
    /// The URL before the path of a request.
    base: String,
    /// The URL in messages.
    url: String,
    api_token: Option<String>,
}

/// Why a request has no result.
pub enum RequestError {
    /// Status 409, with its body: another lease holds the session, or the lease is lost.
    Conflict(Value),
    /// Another 4xx status: the request is wrong.
    Refused(String),
    /// There is no server, or it cannot answer now.
    NoServer(String),
}

/// Reads the flags of a command, and creates the client for its server.
pub fn connect(
    arguments: Vec<OsString>,
    with_value: &[&str],
    switches: &[&str],
) -> Result<(Client, Flags), Failure> {
    let with_value = [with_value, &["url", "api-token"]].concat();
    let flags = Flags::read(arguments, &with_value, switches)?;
    let url = server_url(&flags)?;
    let api_token = flags.get_or_variable("api-token", API_TOKEN_VARIABLE, environment)?;
    Ok((Client::new(url, api_token), flags))
}

/// The request's fields for the conversation that the flags name.
pub fn ids(flags: &Flags) -> Result<Value, Failure> {
    Ok(json!({"id_device": flags.need("device")?, "id_prospect": flags.need("prospect")?}))
}

/// An environment variable. An empty one in an environment file means "not set".
fn environment(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

fn server_url(flags: &Flags) -> Result<String, Failure> {
    if let Some(url) = flags.get_or_variable("url", "SESSION_LOCK_URL", environment)? {
        if url.starts_with("http://") || url.starts_with(UNIX_PREFIX) {
            return Ok(url);
        }
        return Err(Failure::usage("SESSION_LOCK_URL must begin with http:// or unix:/"));
    }
    let address = flags.get_or_variable("listen", "SESSION_LOCK_LISTEN", environment)?;
    let address = listen(address.as_deref().unwrap_or(LISTEN_DEFAULT));
    let address =
        address.map_err(|error| Failure::usage(format!("SESSION_LOCK_LISTEN {error}")))?;
    match address.for_clients() {
        Listen::Tcp(address) => Ok(format!("http://{address}")),
        address @ Listen::Unix(_) => Ok(address.to_string()),
    }
}

impl Client {
    fn new(url: String, api_token: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            // Ignore the proxy of the environment: it could read the API token in plain HTTP, and
            // it cannot reach this machine's loopback address.
            .proxy(None)
            .build();
        let (agent, base) = match url.strip_prefix(UNIX_PREFIX) {
            Some(path) => {
                let connector = UnixConnector(path.into());
                let agent = ureq::Agent::with_parts(config, connector, DefaultResolver::default());
                (agent, "http://127.0.0.1")
            }
            None => (ureq::Agent::new_with_config(config), url.trim_end_matches('/')),
        };
        Self { agent, base: base.to_owned(), url, api_token }
    }

    /// Sends a POST. A 200 must have the field `needed`, which only this program's server sends.
    pub fn post(
        &self,
        path: &str,
        body: &Value,
        timeout: Duration,
        needed: &str,
    ) -> Result<Value, RequestError> {
        let request = self.prepare(self.agent.post(self.base.clone() + path), timeout);
        self.read(request.content_type("application/json").send(body.to_string()), needed)
    }

    /// Sends a GET. `needed` is as in [`Self::post`].
    pub fn get(&self, path: &str, timeout: Duration, needed: &str) -> Result<Value, RequestError> {
        self.read(self.prepare(self.agent.get(self.base.clone() + path), timeout).call(), needed)
    }

    fn prepare<B>(&self, request: RequestBuilder<B>, timeout: Duration) -> RequestBuilder<B> {
        let request = request.config().timeout_global(Some(timeout)).build();
        match &self.api_token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn read(
        &self,
        response: Result<Response<Body>, ureq::Error>,
        needed: &str,
    ) -> Result<Value, RequestError> {
        let (status, body) = parse(response).map_err(|error| {
            NoServer(format!(
                "no session-lock server at {}: {error}; set its address with --url or SESSION_LOCK_URL",
                self.url
            ))
        })?;
        let message = match body["error"]["message"].as_str() {
            Some(message) => message.to_owned(),
            None => format!("the server answered {status}"),
        };
        match status {
            200 if body[needed].is_null() => Err(NoServer(format!(
                "the server at {} is not session-lock: its answer has no {needed:?}",
                self.url
            ))),
            200 => Ok(body),
            401 => {
                Err(Refused(format!("the server requires its API token: set {API_TOKEN_VARIABLE}")))
            }
            409 => Err(Conflict(body)),
            400..500 => Err(Refused(message)),
            _ => Err(NoServer(message)),
        }
    }
}

fn parse(response: Result<Response<Body>, ureq::Error>) -> Result<(u16, Value), Box<dyn Error>> {
    let mut response = response?;
    let text = response.body_mut().read_to_string()?;
    let body = serde_json::from_str(&text).map_err(|_| "the answer is not JSON")?;
    Ok((response.status().as_u16(), body))
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            Conflict(_) => Self::new(exit_status::NO_SERVER, "the server answered 409"),
            Refused(message) => Self::usage(message),
            NoServer(message) => Self::new(exit_status::NO_SERVER, message),
        }
    }
}
