//! A minimal HTTP client.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A minimal HTTP client.
pub struct Http {
    pub stream: BufReader<TcpStream>,
    request: String,
    line: String,
    body: Vec<u8>,
}

impl Http {
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self {
            stream: BufReader::new(stream),
            request: String::new(),
            line: String::new(),
            body: Vec::new(),
        }
    }

    /// Sends a request. Returns the body of an answer with status 200, or the status line of any
    /// other answer.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<&str, String> {
        self.request.clear();
        let _ = write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let failed = |error: std::io::Error| error.to_string();
        self.stream.get_mut().write_all(self.request.as_bytes()).map_err(failed)?;
        let (mut status, mut length) = (String::new(), 0);
        loop {
            self.line.clear();
            self.stream.read_line(&mut self.line).map_err(failed)?;
            let line = self.line.trim_end();
            if status.is_empty() {
                line.clone_into(&mut status);
            }
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.parse().unwrap();
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).map_err(failed)?;
        if status.contains(" 200") {
            Ok(std::str::from_utf8(&self.body).unwrap())
        } else {
            Err(status)
        }
    }
}
