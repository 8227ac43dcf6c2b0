//! Clients of session-lock, and of the `literal` server, which has the same interface.

use crate::http::Http;
use crate::measure::{Client, prospect};

pub fn http_pairs(address: &str) -> Client {
    let mut http = Http::connect(address);
    Box::new(move |number| {
        let session = format!(r#""id_device":"bot1","id_prospect":"{}""#, prospect(number));
        let granted = http.ask("POST", "/v1/acquire", &format!("{{{session}}}"))?;
        let (_, token) = granted.split_once(r#""owner_token":""#).ok_or("no token")?;
        let body = format!(r#"{{{session},"owner_token":"{}"}}"#, &token[..20]);
        http.ask("POST", "/v1/release", &body).map(drop)
    })
}

/// Two requests that are refused: for one of a few sessions that are held all the time.
pub fn refused(address: &str) -> Client {
    const SESSIONS: u64 = 8;
    let mut http = Http::connect(address);
    Box::new(move |number| {
        let prospect = number % SESSIONS;
        let body = format!(r#"{{"id_device":"bot3","id_prospect":"{prospect}","ttl_ms":900000}}"#);
        for _ in 0..2 {
            match http.ask("POST", "/v1/acquire", &body) {
                Err(status) if !status.contains(" 409") => return Err(status),
                // The very first request is granted, and its lease is held to the end.
                _ => {}
            }
        }
        Ok(())
    })
}

/// Two requests for one of a few sessions, most of which are held: refused, or granted and
/// released.
pub fn contended(address: &str) -> Client {
    const SESSIONS: u64 = 8;
    let mut http = Http::connect(address);
    Box::new(move |number| {
        let session = format!(r#""id_device":"bot2","id_prospect":"{}""#, number % SESSIONS);
        let acquire = format!("{{{session}}}");
        let mut answers = 0;
        while answers < 2 {
            let granted = match http.ask("POST", "/v1/acquire", &acquire) {
                Ok(granted) => granted,
                Err(status) if status.contains(" 409") => {
                    answers += 1;
                    continue;
                }
                Err(status) => return Err(status),
            };
            let (_, token) = granted.split_once(r#""owner_token":""#).ok_or("no token")?;
            let body = format!(r#"{{{session},"owner_token":"{}"}}"#, &token[..20]);
            http.ask("POST", "/v1/release", &body)?;
            answers += 2;
        }
        Ok(())
    })
}

pub fn noops(address: &str) -> Client {
    let mut http = Http::connect(address);
    Box::new(move |_| {
        http.ask("GET", "/healthz", "")?;
        http.ask("GET", "/healthz", "").map(drop)
    })
}
