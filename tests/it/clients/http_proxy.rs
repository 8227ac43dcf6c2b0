//! A proxy in front of the service that loses, invents or rewrites answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// `Retry-After` of a lossy proxy's 503.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Answers each request, on its own connection, by calling a function.
pub struct HttpProxy {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Debug)]
pub struct Request {
    pub came: Instant,
    pub text: String,
}

impl HttpProxy {
    /// The function takes the number of a request and its text.
    pub fn start(mut answer: impl FnMut(usize, &str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&requests);
        thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let text = read_message(&client);
                let answer = answer(number, &text);
                let came = Instant::now();
                received.lock().unwrap().push(Request { came, text });
                let _ = (&client).write_all(answer.as_bytes());
            }
        });
        Self { address, requests }
    }

    /// Loses the first answer, answers the second request with 503, and forwards all others.
    pub fn lossy(server: SocketAddr) -> Self {
        Self::start(move |number, request| match number {
            0 => {
                pass(server, request);
                String::new()
            }
            1 => {
                let retry_after = RETRY_AFTER.as_secs();
                response("503 Service Unavailable", &format!("Retry-After: {retry_after}\r\n"), "")
            }
            _ => pass(server, request),
        })
    }
}

/// Forwards a request. Returns the answer.
pub fn pass(server: SocketAddr, request: &str) -> String {
    let mut server = TcpStream::connect(server).unwrap();
    server.write_all(request.as_bytes()).unwrap();
    read_message(&server).replacen("\r\n", "\r\nConnection: close\r\n", 1)
}

/// An answer with this status, these headers and this body.
pub fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Reads a request or an answer, as long as its `Content-Length` says.
fn read_message(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut message, mut length) = (String::new(), 0);
    while !message.ends_with("\r\n\r\n") {
        let start = message.len();
        assert!(reader.read_line(&mut message).unwrap() > 0, "{message}");
        if let Some((name, value)) = message[start..].split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    reader.take(length).read_to_string(&mut message).unwrap();
    message
}
