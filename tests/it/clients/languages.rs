//! What each client does for a bot, in every language.

use std::io::Read;
use std::net::TcpListener;
use std::time::Instant;

use serde_json::json;

use super::http_proxy::{HttpProxy, RETRY_AFTER, Request, pass, response};
use super::worker::{Client, NODE, PHP, PYTHON, SHELL, Skill, Worker, acquire_once, command, go};
use crate::world::{Fault, Proxy, Session, World, assert_says, eventually, tests};

tests![
    the_go_client_does_what_a_bot_needs,
    the_node_client_does_what_a_bot_needs,
    the_php_client_does_what_a_bot_needs,
    the_python_client_does_what_a_bot_needs,
    the_shell_client_does_what_a_bot_needs,
];

fn the_go_client_does_what_a_bot_needs(world: &World) {
    does_what_a_bot_needs(world, go());
}

fn the_node_client_does_what_a_bot_needs(world: &World) {
    does_what_a_bot_needs(world, NODE);
}

fn the_php_client_does_what_a_bot_needs(world: &World) {
    does_what_a_bot_needs(world, PHP);
}

fn the_python_client_does_what_a_bot_needs(world: &World) {
    does_what_a_bot_needs(world, PYTHON);
}

fn the_shell_client_does_what_a_bot_needs(world: &World) {
    does_what_a_bot_needs(world, SHELL);
}

fn does_what_a_bot_needs(world: &World, client: Client) {
    answers_a_message_once(world, client);
    records_a_message_on_release(world, client);
    sends_results_as_short_as_they_are(world, client);
    renews(world, client);
    learns_that_its_lease_is_lost(world, client);
    repeats_requests_until_they_are_answered(world, client);
    takes_a_base_url_with_a_path(world, client);
    fails_at_once_with_the_words_of_a_refusal(world, client);
    fails_with_the_last_answer_and_sleeps_no_more(client);
    reaches_loopback_without_a_proxy(world, client);
    uses_tls_for_https_urls(client);
    if client.can(Skill::SaysWhetherItIsAlive) {
        is_not_alive_when_its_lease_may_have_expired(world, client);
    }
}

fn answers_a_message_once(world: &World, client: Client) {
    let session = Session::new();
    let start = |options: &[&str]| Worker::start(client, world.service.address, &session, options);
    let mut worker = start(&["wamid.1", "0", "60000"]);
    let granted = worker.tell("acquire");
    assert_eq!(granted["how"], "new", "{granted}");
    let read = world.service.get(&session.path());
    assert_eq!(read.json["fencing_token"], granted["fencing_token"]);
    assert!(read.number("remaining_ms") > 40_000, "{read:?}");

    let mut rival = start(&["wamid.1"]);
    let refused = rival.tell("acquire");
    assert_eq!((&refused["granted"], &refused["reason"]), (&json!(false), &json!("held")));
    let mut next = start(&["wamid.2", "20000"]);
    next.send("acquire");
    world.service.wait_for_waiters(&session, 1);

    assert_eq!(worker.tell("commit r-17"), json!({"committed": true, "how": "new"}));
    assert_eq!(worker.tell("commit r-17"), json!({"committed": true, "how": "again"}));
    let refused = rival.tell("acquire");
    assert_eq!((&refused["reason"], &refused["result"]), (&json!("duplicate"), &json!("r-17")));

    assert_eq!(worker.tell("release"), json!({"released": true}));
    assert_eq!(next.answer()["how"], "new");
    assert_eq!(next.tell("release"), json!({"released": true}));
    assert_eq!(world.stored(&session), None);
}

fn records_a_message_on_release(world: &World, client: Client) {
    let session = Session::new();
    let start =
        |message_id: &str| Worker::start(client, world.service.address, &session, &[message_id]);
    let mut worker = start("wamid.1");
    worker.tell("acquire");
    assert_eq!(worker.tell("release r-17 wamid.2"), json!({"released": true}));
    let mut worker = start("wamid.1");
    assert_eq!(worker.tell("acquire")["granted"], true, "only the other message was recorded");
    assert_eq!(worker.tell("release r-18"), json!({"released": true}));
    for (message_id, result) in [("wamid.1", "r-18"), ("wamid.2", "r-17")] {
        let refused = start(message_id).tell("acquire");
        assert_eq!((&refused["reason"], &refused["result"]), (&json!("duplicate"), &json!(result)));
    }
}

/// A result may have 512 bytes. Escapes would make this one longer.
fn sends_results_as_short_as_they_are(world: &World, client: Client) {
    let session = Session::new();
    let mut worker = Worker::start(client, world.service.address, &session, &["wamid.1"]);
    worker.tell("acquire");
    let result = "é/&".repeat(100);
    assert_eq!(worker.tell(&format!("commit {result}"))["committed"], true);
    assert_eq!(worker.tell("acquire")["result"], *result);
}

fn renews(world: &World, client: Client) {
    let session = Session::new();
    let mut worker = Worker::start(client, world.service.address, &session, &[]);
    worker.tell("acquire");
    for _ in 0..2 {
        world.age(&session, 25);
        assert_eq!(worker.tell("renew")["renewed"], true);
    }
    world.service.acquire(&session, json!({})).assert_held();
    if client.can(Skill::RenewsByItself) {
        let session = Session::new();
        let mut worker =
            Worker::start(client, world.service.address, &session, &["wamid.1", "0", "3000"]);
        worker.tell("acquire");
        let granted = world.stored(&session);
        eventually(|| "a renewal", || (world.stored(&session) != granted).then_some(()));
        assert_eq!(worker.tell("release"), json!({"released": true}));
    }
}

fn learns_that_its_lease_is_lost(world: &World, client: Client) {
    let session = Session::new();
    let mut worker = Worker::start(client, world.service.address, &session, &["wamid.1"]);
    worker.tell("acquire");
    if client.can(Skill::SaysWhetherItIsAlive) {
        assert_eq!(worker.tell("alive"), true);
    }
    world.age(&session, 600);
    let takeover = world.service.acquire(&session, json!({}));
    takeover.assert_granted("takeover");
    assert_eq!(worker.tell("renew"), json!({"renewed": false, "reason": "lost"}));
    if client.can(Skill::SaysWhetherItIsAlive) {
        assert_eq!(worker.tell("alive"), false);
    }
    assert_eq!(worker.tell("commit r-17"), json!({"committed": false, "reason": "lost"}));
    assert_eq!(worker.tell("release"), json!({"released": false, "reason": "lost"}));
    assert_eq!(world.service.release(&session, &takeover.text("owner_token")).status, 200);
}

fn repeats_requests_until_they_are_answered(world: &World, client: Client) {
    let session = Session::new();
    let proxy = HttpProxy::lossy(world.service.address);
    let mut worker = Worker::start(client, proxy.address, &session, &["wamid.1"]);
    assert_eq!(worker.tell("acquire")["how"], "again", "the lost answer was a grant");
    assert_eq!(worker.tell("commit r-17")["how"], "new");
    let requests = proxy.requests.lock().unwrap();
    assert_eq!(requests.len(), 4, "{requests:#?}");
    let body = |number: usize| requests[number].text.split_once("\r\n\r\n").unwrap().1;
    assert_eq!((body(0), body(0)), (body(1), body(2)));
    assert!(requests[2].came - requests[1].came >= RETRY_AFTER, "{requests:#?}");
    let authorized = |request: &Request| {
        let text = request.text.to_ascii_lowercase();
        text.contains("\r\nauthorization: bearer secret\r\n")
    };
    assert!(requests.iter().all(authorized), "{requests:#?}");
}

fn takes_a_base_url_with_a_path(world: &World, client: Client) {
    let server = world.service.address;
    // Unlike the service, this gateway refuses repeated slashes.
    let gateway =
        HttpProxy::start(move |_, request| match request.strip_prefix("POST /locks/v1/") {
            Some(rest) => pass(server, &format!("POST /v1/{rest}")),
            None => response("404 Not Found", "", ""),
        });
    let gateway = gateway.address;
    let urls = ["locks", "locks/", "locks//"].map(|path| format!("http://{gateway}/{path}"));
    let urls = [&[format!("http://{server}/")], &urls[..]].concat();
    for url in urls {
        let session = Session::new();
        let mut worker = Worker::start_at(client, &url, &session, &[]);
        assert_eq!(worker.tell("acquire")["granted"], true, "{url}");
        assert_eq!(worker.tell("release")["released"], true, "{url}");
    }
}

/// The client has a wrong API token, requests a ttl that is too short, or sends to a wrong server.
fn fails_at_once_with_the_words_of_a_refusal(world: &World, client: Client) {
    let guarded = world.serve(&["--api-token", "another"]);
    let (server, guarded_server) = (world.service.address, guarded.address);
    let refusals: [(HttpProxy, &str); 3] = [
        (HttpProxy::start(move |_, request| pass(guarded_server, request)), "API token"),
        (HttpProxy::start(move |_, request| pass(server, request)), "ttl_ms must be"),
        (HttpProxy::start(|_, _| response("404 Not Found", "", "<p>no such page")), "no such page"),
    ];
    for (proxy, words) in refusals {
        let url = format!("http://{}", proxy.address);
        let printed = acquire_once(client.program, &url, &["wamid.1", "0", "5"]);
        assert_says(&printed.err, &["session-lock", words]);
        assert_eq!(proxy.requests.lock().unwrap().len(), 1, "{printed:?}");
    }
}

fn fails_with_the_last_answer_and_sleeps_no_more(client: Client) {
    const ATTEMPTS: usize = 6;
    let proxy = HttpProxy::start(|number, _| {
        let retry_after = if number + 1 < ATTEMPTS { 0 } else { RETRY_AFTER.as_secs() };
        let retry_after = format!("Retry-After: {retry_after}\r\n");
        response("503 Service Unavailable", &retry_after, &format!("reason {number}"))
    });
    let printed = acquire_once(client.program, &format!("http://{}", proxy.address), &[]);
    let ended = Instant::now();
    assert_says(&printed.err, &["session-lock", "503", "reason 5"]);
    let requests = proxy.requests.lock().unwrap();
    assert_eq!(requests.len(), ATTEMPTS, "{printed:?}");
    assert!(ended - requests[ATTEMPTS - 1].came < RETRY_AFTER, "{requests:#?}");
}

fn reaches_loopback_without_a_proxy(world: &World, client: Client) {
    let port = world.service.address.port();
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{port}");
        let printed = acquire_once(client.program, &url, &[]);
        assert!(printed.out.contains(r#""granted":"#), "{url}: {printed:?}");
    }
}

/// Otherwise anyone on the network path could read its API token.
fn uses_tls_for_https_urls(client: Client) {
    const HANDSHAKE: u8 = 22;
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", server.local_addr().unwrap());
    let mut demo = command(client.program);
    demo.args(["bot1", "60123456789"]).env("SESSION_LOCK_URL", url);
    let mut worker = Worker::spawn(&mut demo);
    worker.send("acquire");
    let (mut connection, _) = server.accept().unwrap();
    let mut first = [0];
    connection.read_exact(&mut first).unwrap();
    assert_eq!(first, [HANDSHAKE]);
}

fn is_not_alive_when_its_lease_may_have_expired(world: &World, client: Client) {
    let session = Session::new();
    let proxy = Proxy::start(world.service.address);
    let options = ["wamid.1", "0", "2000"];
    let mut worker = Worker::start(client, proxy.address, &session, &options);
    worker.tell("acquire");
    assert_eq!(worker.tell("alive"), true);
    proxy.set(Fault::Discard);
    eventually(
        || "it is not alive, although no answer says so",
        || (worker.tell("alive") == false).then_some(()),
    );
}
