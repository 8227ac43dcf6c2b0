//! What a shell has of its own: subshells, strict options, and the user's settings of curl.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::http_proxy::{HttpProxy, Request, pass, response};
use super::worker::{SHELL, Worker, command, printed};
use crate::world::{Printed, Session, World, tests};

tests![
    the_shell_client_sends_its_api_token_to_no_proxy,
    a_killed_shell_client_renews_no_longer,
    a_killed_subshell_renews_no_longer,
    the_shell_client_works_in_a_strict_shell,
    the_shell_client_releases_nothing_before_an_acquire,
    the_shell_client_reads_no_settings_of_curl,
];

fn the_shell_client_sends_its_api_token_to_no_proxy(_world: &World) {
    let granted = r#"{"granted":true}"#;
    let proxy = HttpProxy::start(move |_, _| response("200 OK", "", granted));
    let proxy_url = format!("http://{}", proxy.address);
    let is_asked = |scheme: &str| {
        let mut shell = command(&["sh", "session_lock.sh", "bot1", "60123456789"]);
        shell.env("SESSION_LOCK_URL", format!("{scheme}://lock.invalid"));
        shell.env("SESSION_LOCK_API_TOKEN", "secret");
        shell.envs(["http_proxy", "https_proxy"].map(|variable| (variable, &proxy_url)));
        printed(&mut shell, "acquire\n");
        proxy.requests.lock().unwrap().drain(..).any(|Request { text, .. }| {
            assert!(!text.contains("secret"), "{text}");
            true
        })
    };
    assert!(!is_asked("http"));
    assert!(is_asked("https"), "only to connect, for TLS from the client to the server");
}

fn a_killed_shell_client_renews_no_longer(world: &World) {
    let session = Session::new();
    let mut worker =
        Worker::start(SHELL, world.service.address, &session, &["wamid.1", "0", "3000"]);
    worker.tell("acquire");
    drop(worker);
    let next = json!({"message_id": "wamid.1", "wait_ms": 20_000});
    world.service.acquire(&session, next).assert_granted("takeover");
}

/// A bot with the two ids.
fn bot(shell: &str, script: &str, session: &Session, url: &str) -> Command {
    let script = format!(". ./session_lock.sh\n{script}");
    let mut bot = command(&[shell, "-c", &script, shell, &session.device, &session.prospect]);
    bot.env("SESSION_LOCK_URL", url);
    bot
}

fn a_killed_subshell_renews_no_longer(world: &World) {
    const BOT: &str = r#"
(session_lock_acquire "$1" "$2" wamid.1 0 3000; kill -9 "$(exec sh -c 'echo $PPID')")
echo '"killed"'
read -r end
"#;
    for shell in ["sh", "bash"] {
        let session = Session::new();
        let mut worker = Worker::spawn(&mut bot(shell, BOT, &session, &world.service.http_url()));
        assert_eq!(worker.answer(), "killed");
        let next = json!({"message_id": "wamid.1", "wait_ms": 20_000});
        world.service.acquire(&session, next).assert_granted("takeover");
    }
}

fn the_shell_client_works_in_a_strict_shell(world: &World) {
    const BOT: &str = r#"
set -euo pipefail
session_lock_acquire "$1" "$2" wamid.1
session_lock_renew
session_lock_commit r-17
session_lock_release
echo "$session_lock_answer"
"#;
    let (server, session) = (world.service.address, Session::new());
    let proxy = HttpProxy::start(move |number, request| match number {
        0 => String::new(),
        1 => response("503 Service Unavailable", "", ""),
        _ => pass(server, request),
    });
    let url = format!("http://{}", proxy.address);
    let Printed { status, out, err } = printed(&mut bot("bash", BOT, &session, &url), "");
    assert_eq!((status, out.trim()), (Some(0), r#"{"released":true}"#), "{err}");
}

fn the_shell_client_releases_nothing_before_an_acquire(world: &World) {
    const BOT: &str = r#"
set -u
session_lock_release || echo "$? $session_lock_answer"
session_lock_acquire "$1" "$2"
session_lock_release && echo "$session_lock_answer"
session_lock_release || echo "$? $session_lock_answer"
"#;
    const LOST: &str = r#"1 {"released":false,"reason":"lost"}"#;
    for shell in ["sh", "bash"] {
        let session = Session::new();
        let printed = printed(&mut bot(shell, BOT, &session, &world.service.http_url()), "");
        let lines: Vec<_> = printed.out.lines().collect();
        assert_eq!(lines, [LOST, r#"{"released":true}"#, LOST], "{printed:?}");
    }
}

fn the_shell_client_reads_no_settings_of_curl(world: &World) {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".curlrc"), "header = \"From: a-curlrc\"\n").unwrap();
    let server = world.service.address;
    let proxy = HttpProxy::start(move |_, request| pass(server, request));
    let mut shell = command(SHELL.program);
    let Session { device, prospect } = Session::new();
    shell.args([device, prospect]).env("SESSION_LOCK_URL", format!("http://{}", proxy.address));
    shell.env("HOME", home.path()).env_remove("CURL_HOME").env_remove("XDG_CONFIG_HOME");
    printed(&mut shell, "acquire\n");
    let requests = proxy.requests.lock().unwrap();
    assert!(requests.len() == 1 && !requests[0].text.contains("a-curlrc"), "{requests:#?}");
}
