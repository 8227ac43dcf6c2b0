//! The forms in which HTTP libraries send a body.

use std::io::{self, Read};

use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body, Error, SendBody};

use crate::world::UPGRADE;

/// The size of a chunk, so that a body has several.
const CHUNK_BYTES: usize = 40;

#[derive(Clone, Copy)]
pub enum Form {
    /// With a `Content-Length`.
    Declared,
    Chunked,
    /// Declared, with an offer of an upgrade to h2c, as the JDK's client sends it.
    Upgrade,
    ChunkedUpgrade,
}

impl Form {
    pub const ALL: [Self; 4] = [Self::Declared, Self::Chunked, Self::Upgrade, Self::ChunkedUpgrade];

    pub fn name(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Chunked => "chunked",
            Self::Upgrade => "h2c offered",
            Self::ChunkedUpgrade => "chunked, h2c offered",
        }
    }

    pub fn post(self, agent: &Agent, url: &str, body: &Value) -> Result<Response<Body>, Error> {
        let mut request = agent.post(url);
        if matches!(self, Self::Upgrade | Self::ChunkedUpgrade) {
            for line in UPGRADE.lines() {
                let (name, value) = line.split_once(": ").expect("they are headers");
                request = request.header(name, value);
            }
        }
        let body = body.to_string();
        match self {
            Self::Declared | Self::Upgrade => request.send(body),
            // A body of unknown length is sent in chunks.
            Self::Chunked | Self::ChunkedUpgrade => {
                request.send(SendBody::from_reader(&mut Chunks(body.as_bytes())))
            }
        }
    }
}

/// Gives a body piece by piece.
struct Chunks<'a>(&'a [u8]);

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = buffer.len().min(CHUNK_BYTES);
        self.0.read(&mut buffer[..size])
    }
}
