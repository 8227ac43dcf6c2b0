//! What a PHP installation can have of its own: where settings are, what php.ini forbids, and webhooks.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::worker::{CLIENTS, acquire_once, command, printed};
use crate::world::{KillOnDrop, Session, World, assert_says, eventually, free_port, tests};

tests![
    the_php_webhook_tells_the_provider_what_to_do,
    the_php_client_reads_settings_that_only_php_knows,
    the_php_client_says_at_once_that_php_ini_forbids_it,
];

/// A bot whose framework has read a .env file. It takes the ids.
const BOT: &str = r#"
require "session_lock.php";
$lease = new SessionLock\Lease($argv[1], $argv[2]);
echo json_encode([$lease->acquire()["granted"], $lease->release()["released"]]);
"#;

fn the_php_client_reads_settings_that_only_php_knows(world: &World) {
    let guarded = world.serve(&["--api-token", "s3cret"]);
    let url = guarded.http_url();
    for place in ["_ENV", "_SERVER"] {
        let session = Session::new();
        let settings = format!(
            "${place}['SESSION_LOCK_URL'] = '{url}'; ${place}['SESSION_LOCK_API_TOKEN'] = 's3cret';"
        );
        let mut bot = command(&["php", "-r", &(settings + BOT)]);
        bot.args([&session.device, &session.prospect]);
        let printed = printed(&mut bot, "");
        let answers: Value = serde_json::from_str(&printed.out).expect(&printed.out);
        assert_eq!(answers, json!([true, true]), "{place}: {printed:?}");
    }
}

fn the_php_client_says_at_once_that_php_ini_forbids_it(world: &World) {
    let program =
        ["php", "-d", "allow_url_fopen=0", "-d", "display_errors=stderr", "session_lock.php"];
    let printed = acquire_once(&program, &world.service.http_url(), &[]);
    let line = printed.err.lines().next().expect("a line");
    assert_says(line, &["session-lock", "allow_url_fopen"]);
}

/// What the bot of the README has of its own. The request says what becomes of its work.
const WORK: &str = r"<?php
function work($lease) {
    match ($_GET['work']) {
        'exits' => exit(),
        'throws' => throw new Exception('no reply'),
        'loses' => $lease->release(),
        'succeeds' => null,
    };
    return (object) ['id' => 'r-17'];
}

function send($reply) {
    echo $reply->id;
}
";

fn the_php_webhook_tells_the_provider_what_to_do(world: &World) {
    let session = Session::new();
    let folder = tempfile::tempdir().unwrap();
    let clients = Path::new(CLIENTS);
    fs::copy(clients.join("session_lock.php"), folder.path().join("session_lock.php")).unwrap();
    let readme = fs::read_to_string(clients.join("README.md")).unwrap();
    let shown = readme.split("```php\n").nth(1).unwrap().split("```").next().unwrap();
    let shown = shown
        .replace("'bot1'", &format!("'{}'", session.device))
        .replace("'60123456789'", &format!("'{}'", session.prospect))
        .replace("'wamid.1'", "$_GET['message']")
        .replace(", waitMs: 5000", "");
    fs::write(folder.path().join("webhook.php"), format!("{WORK}{shown}")).unwrap();

    let address = format!("127.0.0.1:{}", free_port());
    let mut server = command(&["php", "-d", "display_errors=0", "-S", &address]);
    server.current_dir(folder.path()).env("SESSION_LOCK_URL", world.service.http_url());
    let _server = KillOnDrop(server.stderr(Stdio::null()).spawn().unwrap());
    eventually(|| "PHP's server", || TcpStream::connect(&address).ok());
    let get = |path: &str| {
        let mut connection = TcpStream::connect(&address).unwrap();
        // In one piece: PHP's server refuses a request whose first line comes in several.
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    };
    let deliver = |message: &str, work: &str| {
        let (status, sent) = get(&format!("/webhook.php?message={message}&work={work}"));
        format!("{status} {sent}")
    };
    for work in ["exits", "throws", "loses"] {
        assert_eq!(deliver("wamid.1", work), "503 ", "{work}");
        assert_eq!(world.stored(&session), None, "{work}");
    }
    assert_eq!(deliver("wamid.1", "succeeds"), "200 r-17");
    assert_eq!(deliver("wamid.1", "succeeds"), "200 ", "a duplicate");
    world.service.hold(&session);
    assert_eq!(deliver("wamid.2", "succeeds"), "503 ", "held");
    assert_eq!(get("/session_lock.php"), ("200".to_owned(), String::new()), "the file itself");
}
