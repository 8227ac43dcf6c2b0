//! How soon a release reaches the first in line: from sending the release to having the next
//! worker's grant, through the real binary on a private database. `cargo bench --bench wakeup`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use session_lock::testing::PrivateDatabase;

const ROUNDS: usize = 300;

fn post(agent: &ureq::Agent, url: &str, fields: &Value) -> Value {
    let mut body = json!({"id_device": "bot1", "id_prospect": "60123456789"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut answer = agent.post(url).send(body.to_string()).unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

fn main() {
    let database = PrivateDatabase::start_installed().unwrap_or_else(|error| panic!("{error}"));
    let binary = env!("CARGO_BIN_EXE_session-lock");
    let run = |command: &str| {
        let mut run = Command::new(binary);
        run.arg(command)
            .env("DATABASE_URL", database.url())
            .env("SESSION_LOCK_LISTEN", "127.0.0.1:0");
        run
    };
    assert!(run("migrate").status().unwrap().success());
    let mut service = run("serve").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening = lines.find(|line| line.contains("listening on ")).unwrap();
    let url = format!("http://{}", listening.rsplit(' ').next().unwrap());
    assert!(lines.any(|line| line.contains("ready")));
    thread::spawn(move || lines.count());

    let agent = || ureq::Agent::new_with_defaults();
    let (holder, acquire, release) =
        (agent(), format!("{url}/v1/acquire"), format!("{url}/v1/release"));
    let mut waits = Vec::new();
    for _ in 0..ROUNDS {
        let held = post(&holder, &acquire, &json!({}));
        let (granted, grant) = channel();
        let (waiter, next, free) = (agent(), acquire.clone(), release.clone());
        let waiting = thread::spawn(move || {
            let lease = post(&waiter, &next, &json!({"wait_ms": 10_000}));
            granted.send(Instant::now()).unwrap();
            post(&waiter, &free, &json!({"owner_token": lease["owner_token"]}));
        });
        thread::sleep(Duration::from_millis(20));
        let released_at = Instant::now();
        post(&holder, &release, &json!({"owner_token": held["owner_token"]}));
        waits.push(grant.recv().unwrap() - released_at);
        waiting.join().unwrap();
    }
    let _ = service.kill();
    let _ = service.wait();
    waits.sort();
    println!(
        "from release to the next grant, {ROUNDS} times: median {:?}, p99 {:?}",
        waits[ROUNDS / 2],
        waits[ROUNDS * 99 / 100]
    );
}
