//! The clients to copy into a bot, each as its own program, against the real server.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::proxy::{self, Fault};
use crate::world::{Session, TABLE, World, eventually, tests};

tests![
    the_go_client_does_what_a_bot_needs,
    the_node_client_does_what_a_bot_needs,
    the_php_client_does_what_a_bot_needs,
    the_python_client_does_what_a_bot_needs,
    the_shell_client_does_what_a_bot_needs,
    the_go_client_keeps_the_old_signatures,
    a_killed_shell_client_renews_no_longer,
    the_n8n_client_answers_each_message_once,
];

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// How a client is started, and what it does besides acquire, renew, commit and release.
#[derive(Clone, Copy)]
struct Client(&'static [&'static str], &'static [Skill]);

#[derive(Clone, Copy, PartialEq)]
enum Skill {
    RenewsByItself,
    SaysWhetherItIsAlive,
}

impl Client {
    fn can(self, skill: Skill) -> bool {
        self.1.contains(&skill)
    }
}

use Skill::{RenewsByItself, SaysWhetherItIsAlive};

/// A client's demonstration, which takes one command a line.
struct Worker {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(client: Client, address: SocketAddr, session: &Session, options: &[&str]) -> Self {
        let mut command = start_of(client.0);
        command.args([&session.device, &session.prospect]).args(options);
        Self::spawn(command.env("SESSION_LOCK_URL", format!("http://{address}")))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .env("SESSION_LOCK_API_TOKEN", "secret")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    fn send(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    fn answer(&mut self) -> Value {
        let line = self.answers.next().expect("an answer").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn tell(&mut self, command: &str) -> Value {
        self.send(command);
        self.answer()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with its first arguments, in the clients' folder.
fn start_of(words: &[&str]) -> Command {
    let installed = Command::new("which").arg(words[0]).stdout(Stdio::null()).status().unwrap();
    assert!(installed.success(), "{} is missing: run tests/install languages", words[0]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(CLIENTS);
    command
}

fn the_go_client_does_what_a_bot_needs(world: &World) {
    static PROGRAM: OnceLock<()> = OnceLock::new();
    const PROGRAM_FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/session_lock_go");
    const FILES: [&str; 3] = ["session_lock.go", "session_lock_http.go", "session_lock_demo.go"];
    PROGRAM.get_or_init(|| go_build(Path::new(CLIENTS), PROGRAM_FILE, &FILES));
    let client = Client(&[PROGRAM_FILE], &[RenewsByItself, SaysWhetherItIsAlive]);
    does_what_a_bot_needs(world, client);
}

fn go_build(folder: &Path, program: &str, files: &[&str]) {
    let compiler = ["go", "build", "-o", program];
    let built = start_of(&compiler).args(files).current_dir(folder).status().unwrap();
    assert!(built.success());
}

fn the_node_client_does_what_a_bot_needs(world: &World) {
    let client = Client(&["node", "session_lock.mjs"], &[RenewsByItself, SaysWhetherItIsAlive]);
    does_what_a_bot_needs(world, client);
}

fn the_php_client_does_what_a_bot_needs(world: &World) {
    does_what_a_bot_needs(world, Client(&["php", "session_lock.php"], &[]));
}

fn the_python_client_does_what_a_bot_needs(world: &World) {
    let client = Client(&["python3", "session_lock.py"], &[RenewsByItself, SaysWhetherItIsAlive]);
    does_what_a_bot_needs(world, client);
}

const SHELL: Client = Client(&["sh", "session_lock.sh"], &[RenewsByItself]);

fn the_shell_client_does_what_a_bot_needs(world: &World) {
    does_what_a_bot_needs(world, SHELL);
}

fn does_what_a_bot_needs(world: &World, client: Client) {
    answers_a_message_once(world, client);
    renews(world, client);
    learns_that_its_lease_is_lost(world, client);
    repeats_itself_until_it_is_answered(world, client);
    speaks_tls_to_who_is_called_https(client);
    if client.can(SaysWhetherItIsAlive) {
        is_not_alive_when_its_lease_may_have_expired(world, client);
    }
}

fn answers_a_message_once(world: &World, client: Client) {
    let session = Session::new();
    let start = |options: &[&str]| Worker::start(client, world.service.address, &session, options);
    let mut worker = start(&["wamid.1", "0", "60000"]);
    let granted = worker.tell("acquire");
    assert_eq!(granted["how"], "new", "{granted}");
    let seen = world.service.get(&session.path());
    assert_eq!(seen.json["fencing_token"], granted["fencing_token"]);
    assert!(seen.number("remaining_ms") > 40_000, "{seen:?}");

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

fn renews(world: &World, client: Client) {
    let session = Session::new();
    let mut worker = Worker::start(client, world.service.address, &session, &[]);
    worker.tell("acquire");
    for _ in 0..2 {
        world.age(&session, 25); // of 30
        assert_eq!(worker.tell("renew")["renewed"], true);
    }
    world.service.acquire(&session, json!({})).assert_held();
    if client.can(RenewsByItself) {
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
    if client.can(SaysWhetherItIsAlive) {
        assert_eq!(worker.tell("alive"), true);
    }
    world.age(&session, 600);
    let heir = world.service.acquire(&session, json!({}));
    heir.assert_granted("takeover");
    assert_eq!(worker.tell("renew"), json!({"renewed": false, "reason": "lost"}));
    if client.can(SaysWhetherItIsAlive) {
        assert_eq!(worker.tell("alive"), false);
    }
    assert_eq!(worker.tell("commit r-17"), json!({"committed": false, "reason": "lost"}));
    assert_eq!(worker.tell("release"), json!({"released": false, "reason": "lost"}));
    assert_eq!(world.service.release(&session, &heir.text("owner_token")).status, 200);
}

fn repeats_itself_until_it_is_answered(world: &World, client: Client) {
    let session = Session::new();
    let proxy = Proxy::start(world.service.address);
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

/// Its API token is not for everybody on the way.
fn speaks_tls_to_who_is_called_https(client: Client) {
    const HANDSHAKE: u8 = 22;
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", server.local_addr().unwrap());
    let mut command = start_of(client.0);
    command.args(["bot1", "60123456789"]).env("SESSION_LOCK_URL", url);
    let mut worker = Worker::spawn(&mut command);
    worker.send("acquire");
    let (mut connection, _) = server.accept().unwrap();
    let mut first = [0];
    connection.read_exact(&mut first).unwrap();
    assert_eq!(first, [HANDSHAKE]);
}

fn is_not_alive_when_its_lease_may_have_expired(world: &World, client: Client) {
    let session = Session::new();
    let network = proxy::Proxy::start(world.service.address);
    let options = ["wamid.1", "0", "2000"];
    let mut worker = Worker::start(client, network.address, &session, &options);
    worker.tell("acquire");
    assert_eq!(worker.tell("alive"), true);
    network.set(Fault::Swallow);
    eventually(
        || "it is not alive, although nobody tells it",
        || (worker.tell("alive") == false).then_some(()),
    );
}

const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Loses the first answer, has 503 for the second request, and passes on what comes after.
struct Proxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Debug)]
struct Request {
    came: Instant,
    text: String,
}

impl Proxy {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
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
                seen.lock().unwrap().push(Request { came, text });
                let _ = (&client).write_all(answer.as_bytes());
            }
        });
        Self { address, requests }
    }
}

/// A request or an answer, as long as its `Content-Length` says.
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

/// An old bot, which knows the two functions of before.
const OLD_BOT: &str = r#"package main

import "fmt"

var tryAcquire func(idProspect, idDevice string) (bool, error) = TryAcquireSession
var release func(idProspect, idDevice string) error = ReleaseSession

func main() {
	var idProspect, idDevice string
	fmt.Scanln(&idProspect, &idDevice)
	for {
		acquired, err := tryAcquire(idProspect, idDevice)
		fmt.Printf("[%t,%t]\n", acquired, err != nil)
		fmt.Scanln()
		fmt.Printf("%q\n", fmt.Sprint(release(idProspect, idDevice)))
		fmt.Scanln()
	}
}
"#;

fn the_go_client_keeps_the_old_signatures(world: &World) {
    const FILES: [&str; 3] = ["session_lock.go", "session_lock_http.go", "session_lock_old.go"];
    let folder = tempfile::tempdir().unwrap();
    for file in FILES {
        std::fs::copy(Path::new(CLIENTS).join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("bot.go"), OLD_BOT).unwrap();
    go_build(folder.path(), "bot", &[FILES[0], FILES[1], FILES[2], "bot.go"]);

    let session = Session::new();
    let url = format!("http://{}", world.service.address);
    let mut bot =
        Worker::spawn(Command::new(folder.path().join("bot")).env("SESSION_LOCK_URL", url));
    let ids = format!("{} {}", session.prospect, session.device);
    assert_eq!(bot.tell(&ids), json!([true, false]));
    world.service.acquire(&session, json!({})).assert_held();
    assert_eq!(bot.tell(""), "<nil>");
    assert_eq!(world.stored(&session), None);

    let owner_token = world.service.hold(&session);
    assert_eq!(bot.tell(""), json!([false, false]), "held is no error");
    assert_eq!(bot.tell(""), "session-lock: the lease is lost");
    assert_eq!(world.service.release(&session, &owner_token).status, 200);

    assert_eq!(bot.tell(""), json!([true, false]));
    world.age(&session, 600);
    let owner_token = world.service.hold(&session);
    assert_eq!(bot.tell(""), "session-lock: the lease is lost");
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
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

/// Fills in the expressions of n8n: `$json`, the item at hand, and `$('Node')`, that of a node.
const FILL_IN: &str = r#"
const [template, $json, items] = process.argv.slice(1).map((text) => JSON.parse(text));
const $ = (name) => ({ item: { json: items[name] } });
const value = (expression) => new Function("$", "$json", `return (${expression})`)($, $json);
console.log(template.replace(/^=/, "").replace(/\{\{(.*?)\}\}/g, (_, expression) => value(expression)));
"#;

fn fill_in(template: &Value, item: &Value, items: &Value) -> String {
    let values = [template, item, items].map(Value::to_string);
    let node = ["node", "--eval", FILL_IN, "--"];
    let output = start_of(&node).args(values).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{template}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Takes one webhook through the workflow, as n8n would; what the provider is told.
fn run_workflow(world: &World, session: &Session, message_id: &str, work: impl Fn()) -> Value {
    let workflow = std::fs::read_to_string(Path::new(CLIENTS).join("n8n.json")).unwrap();
    let workflow: Value = serde_json::from_str(&workflow).unwrap();
    let webhook = json!({"body": session.with(json!({"message_id": message_id}))});
    let mut items = json!({"Webhook": webhook});
    let (mut name, mut item) = ("Webhook", webhook);
    loop {
        let mut nodes = workflow["nodes"].as_array().unwrap().iter();
        let node = nodes.find(|node| node["name"] == name).expect(name);
        let parameters = &node["parameters"];
        let options = &parameters["options"];
        let mut output = 0;
        match node["type"].as_str().unwrap().rsplit('.').next().unwrap() {
            "webhook" => {}
            "crypto" => item = json!({"digits": "0f1e2d".repeat(20)}),
            "noOp" => work(),
            "httpRequest" => {
                let url = fill_in(&parameters["url"], &item, &items);
                let path = url.strip_prefix("http://127.0.0.1:7099").unwrap();
                let reply =
                    world.service.post(path, fill_in(&parameters["jsonBody"], &item, &items));
                assert!(matches!(reply.status, 200 | 409), "{name}: {reply:?}");
                item = reply.json;
                if options["response"]["response"]["fullResponse"] == true {
                    let headers = json!({"retry-after": reply.retry_after_s});
                    item = json!({"body": item, "headers": headers});
                } else if reply.status == 409 {
                    assert_eq!(node["onError"], "continueErrorOutput", "{name}");
                    output = 1;
                }
            }
            "if" => {
                let condition = &parameters["conditions"]["conditions"][0]["leftValue"];
                output = usize::from(fill_in(condition, &item, &items) == "false");
            }
            "respondToWebhook" => {
                for header in options["responseHeaders"]["entries"].as_array().into_iter().flatten()
                {
                    assert!(fill_in(&header["value"], &item, &items).parse::<u8>().is_ok());
                }
                return options["responseCode"].clone();
            }
            other => panic!("{name} is a {other}"),
        }
        items[name] = item.clone();
        name = workflow["connections"][name]["main"][output][0]["node"].as_str().expect(name);
    }
}

fn the_n8n_client_answers_each_message_once(world: &World) {
    let session = Session::new();
    let worked = AtomicU32::new(0);
    let work = || {
        world.service.acquire(&session, json!({})).assert_held();
        worked.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(run_workflow(world, &session, "wamid.1", work), 200);
    assert_eq!(worked.load(Ordering::Relaxed), 2, "found the reply, and sent it");
    let owner_token = world.service.hold(&session);
    let idle = || panic!("no reply to this one");
    assert_eq!(run_workflow(world, &session, "wamid.1", idle), 200, "a duplicate");
    assert_eq!(run_workflow(world, &session, "wamid.2", idle), 503, "held");
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
    let overruns = || world.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
    assert_eq!(run_workflow(world, &session, "wamid.2", overruns), 503, "lost");
}
