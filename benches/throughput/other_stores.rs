//! Clients of etcd and of Redis.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::http::Http;
use crate::measure::{Client, prospect};

/// A transaction of etcd that creates the key if it does not exist, through the JSON gateway.
pub fn etcd(address: &str) -> Client {
    let mut http = Http::connect(address);
    Box::new(move |number| {
        let key = base64(&prospect(number));
        let create = format!(
            r#"{{"compare":[{{"key":"{key}","target":"CREATE","create_revision":"0"}}],"success":[{{"request_put":{{"key":"{key}","value":"MQ=="}}}}]}}"#
        );
        http.ask("POST", "/v3/kv/txn", &create)?;
        http.ask("POST", "/v3/kv/deleterange", &format!(r#"{{"key":"{key}"}}"#)).map(drop)
    })
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // The keys have 12 characters: no padding.
    let groups = text.as_bytes().chunks_exact(3).map(|three| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift & 63) as usize]))
    });
    groups.flatten().collect()
}

/// SET NX with an expiry, and a script that deletes the key if it still has our value.
pub fn redis(address: &str) -> Client {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    let script = "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
    Box::new(move |number| {
        let key = prospect(number);
        let set = ["SET", &key, "48210000000000000007", "NX", "PX", "30000"];
        let delete = ["EVAL", script, "1", &key, "48210000000000000007"];
        for command in [&set[..], &delete[..]] {
            let mut text = format!("*{}\r\n", command.len());
            for word in command {
                let _ = write!(text, "${}\r\n{word}\r\n", word.len());
            }
            stream.get_mut().write_all(text.as_bytes()).map_err(|e| e.to_string())?;
            let mut line = String::new();
            stream.read_line(&mut line).map_err(|e| e.to_string())?;
            if !line.starts_with("+OK") && !line.starts_with(":1") {
                return Err(line);
            }
        }
        Ok(())
    })
}
