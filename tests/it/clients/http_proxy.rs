//! A proxy in front of the service that loses answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the 503 asks for.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Loses the first answer, answers the second request with 503, and passes on all that follows.
pub struct LossyProxy {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Debug)]
pub struct Request {
    pub came: Instant,
    pub text: String,
}

impl LossyProxy {
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&requests);
        thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let text = read_message(&client);
                let pass = || {
                    let mut server = TcpStream::connect(server).unwrap();
                    server.write_all(text.as_bytes()).unwrap();
                    read_message(&server)
                };
                let answer = match number {
                    0 => {
                        pass();
                        String::new()
                    }
                    1 => format!(
                        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {}\r\n\
                         Content-Length: 0\r\nConnection: close\r\n\r\n",
                        RETRY_AFTER.as_secs()
                    ),
                    _ => pass().replacen("\r\n", "\r\nConnection: close\r\n", 1),
                };
                let came = Instant::now();
                received.lock().unwrap().push(Request { came, text });
                let _ = (&client).write_all(answer.as_bytes());
            }
        });
        Self { address, requests }
    }
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
