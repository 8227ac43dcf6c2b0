//! Several requests on one connection.

use std::io::{self, Read, Write};

use crate::world::HEALTHZ;

/// Sends a request on a connection that stays open, and reads the answer.
pub fn ask_healthz(stream: &mut (impl Read + Write + ?Sized)) -> io::Result<()> {
    stream.write_all(HEALTHZ.as_bytes())?;
    read_ok(stream)
}

pub fn read_ok(stream: &mut (impl Read + ?Sized)) -> io::Result<()> {
    let answer = read_answer(stream)?;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

pub fn read_answer(stream: &mut (impl Read + ?Sized)) -> io::Result<String> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1_024];
    while !answer.ends_with(b"}\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend(&buffer[..length]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
