//! The other end of the interface: what `run`, `list` and `release` say to a server.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::unversioned::resolver::DefaultResolver;

use crate::cli::unix::UnixConnector;
use crate::config::UNIX_PREFIX;

/// Longer than any answer takes: the longest wait in line, and what a database that fails adds.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(40);

/// How long to wait for a server to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// A server, and how to be let in.
pub struct Client {
    agent: ureq::Agent,
    /// What a path is put behind.
    base: String,
    /// What a person knows it by.
    url: String,
    api_token: Option<String>,
}

/// A conversation, as a person names it.
#[derive(Clone, Debug)]
pub struct Ids {
    pub device: String,
    pub prospect: String,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// A number of the body; 0 if it is not there.
    pub fn number(&self, field: &str) -> u64 {
        self.body[field].as_u64().unwrap_or(0)
    }

    /// Why a lease was refused or lost.
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or("lost")
    }

    /// Whether the server wants something else to be asked.
    pub fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status) && self.status != 409
    }

    /// The server's own words about why it has no other answer.
    pub fn complaint(&self) -> String {
        if self.status == 401 {
            return "the server wants its API token: set SESSION_LOCK_API_TOKEN".to_owned();
        }
        let message = self.body["error"]["message"].as_str();
        message.map_or_else(|| format!("the server answered {}", self.status), str::to_owned)
    }
}

impl Client {
    /// A client of the server at this URL.
    pub fn new(url: &str, api_token: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_global(Some(ANSWER_PATIENCE))
            .build();
        let (agent, base) = match url.strip_prefix(UNIX_PREFIX) {
            Some(path) => {
                let connector = UnixConnector(path.into());
                let agent = ureq::Agent::with_parts(config, connector, DefaultResolver::default());
                (agent, "http://127.0.0.1")
            }
            None => (ureq::Agent::new_with_config(config), url),
        };
        Self { agent, base: base.trim_end_matches('/').to_owned(), url: url.to_owned(), api_token }
    }

    /// Posts a request about a conversation.
    pub fn post(
        &self,
        path: &str,
        ids: &Ids,
        fields: Value,
        patience: Duration,
    ) -> Result<Answer, String> {
        let mut body = fields;
        body["id_device"] = json!(ids.device);
        body["id_prospect"] = json!(ids.prospect);
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.config().timeout_global(Some(patience)).build();
        let request = match &self.api_token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        };
        self.read(request.content_type("application/json").send(body.to_string()))
    }

    /// Gets something.
    pub fn get(&self, path: &str) -> Result<Answer, String> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = match &self.api_token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        };
        self.read(request.call())
    }

    fn read(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, String> {
        let no_server = |error: &dyn std::fmt::Display| {
            format!(
                "no session-lock server at {}: {error}; --url or SESSION_LOCK_URL says where one is",
                self.url
            )
        };
        let mut response = response.map_err(|error| no_server(&error))?;
        let text = response.body_mut().read_to_string().map_err(|error| no_server(&error))?;
        let body =
            serde_json::from_str(&text).map_err(|_| no_server(&"it does not answer in JSON"))?;
        Ok(Answer { status: response.status().as_u16(), body })
    }
}
