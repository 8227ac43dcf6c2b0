//! The n8n workflow, run as n8n would.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value, json};

use super::worker::{CLIENTS, command};
use crate::world::{Reply, Session, TABLE, World, assert_says, tests};

tests![
    the_n8n_client_answers_each_message_once,
    the_n8n_client_takes_numbers_for_ids,
    the_n8n_client_fails_when_it_is_refused,
    the_n8n_client_shows_a_failed_release_after_the_reply,
];

/// Fills in the expressions of n8n: `$json` is the current item, and `$('Node')` that of a node.
const FILL_IN: &str = r#"
const [template, $json, items] = process.argv.slice(1).map((text) => JSON.parse(text));
const $ = (name) => ({ item: { json: items[name] } });
const value = (expression) => new Function("$", "$json", `return (${expression})`)($, $json);
console.log(template.replace(/^=/, "").replace(/\{\{(.*?)\}\}/g, (_, expression) => value(expression)));
"#;

fn fill_in(template: &Value, item: &Value, items: &Value) -> String {
    let values = [template, item, items].map(Value::to_string);
    let node = ["node", "--eval", FILL_IN, "--"];
    let output = command(&node).args(values).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{template}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What one webhook led to.
#[derive(Debug)]
struct Outcome {
    /// The status that the provider is told.
    told: Value,
    /// The message of a failed execution.
    failure: Option<String>,
}

/// Runs the workflow for one webhook, as n8n would. The first function sends a request.
fn run_workflow(post: impl Fn(&str, String) -> Reply, webhook: &Value, work: impl Fn()) -> Outcome {
    let workflow = fs::read_to_string(Path::new(CLIENTS).join("n8n.json")).unwrap();
    let workflow: Value = serde_json::from_str(&workflow).unwrap();
    let mut items = json!({});
    let (mut name, mut item) = ("Webhook", json!({"body": webhook}));
    let mut outcome = Outcome { told: Value::Null, failure: None };
    loop {
        let mut nodes = workflow["nodes"].as_array().unwrap().iter();
        let node = nodes.find(|node| node["name"] == name).expect(name);
        let parameters = &node["parameters"];
        let options = &parameters["options"];
        let mut output = 0;
        match node["type"].as_str().unwrap().rsplit('.').next().unwrap() {
            "webhook" => {}
            "set" => {
                let assignments = parameters["assignments"]["assignments"].as_array().unwrap();
                let set = |field: &Value| {
                    let name = field["name"].as_str().unwrap().to_owned();
                    (name, fill_in(&field["value"], &item, &items).into())
                };
                item = assignments.iter().map(set).collect::<Map<_, _>>().into();
            }
            "crypto" => item["digits"] = json!("0f1e2d".repeat(20)),
            "noOp" => work(),
            "httpRequest" => {
                let url = fill_in(&parameters["url"], &item, &items);
                let path = url.strip_prefix("http://127.0.0.1:7099").unwrap();
                let reply = post(path, fill_in(&parameters["jsonBody"], &item, &items));
                match read_reply(node, item, reply) {
                    Ok(read) => (item, output) = read,
                    Err(error) => return Outcome { failure: Some(error), ..outcome },
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
                assert!(outcome.told.is_null(), "{name} answers a second time");
                outcome.told = options["responseCode"].clone();
            }
            "stopAndError" => {
                let failure = Some(fill_in(&parameters["errorMessage"], &item, &items));
                return Outcome { failure, ..outcome };
            }
            other => panic!("{name} is a {other}"),
        }
        items[name] = item.clone();
        match workflow["connections"][name]["main"][output][0]["node"].as_str() {
            Some(next) => name = next,
            None => return outcome,
        }
    }
}

/// What a node makes of a reply: its item and the number of its output, or why the execution fails.
fn read_reply(node: &Value, mut item: Value, reply: Reply) -> Result<(Value, usize), String> {
    let Reply { status, json, retry_after_s, .. } = reply;
    if node["parameters"]["options"]["response"]["response"]["neverError"] == true {
        let headers = json!({"retry-after": retry_after_s});
        return Ok((json!({"body": json, "headers": headers, "statusCode": status}), 0));
    }
    if status == 200 {
        return Ok((json, 0));
    }
    let error = format!("{status} - {json}");
    if node["onError"] != "continueErrorOutput" {
        return Err(error);
    }
    item["error"] = json!({"message": error, "status": status});
    Ok((item, 1))
}

/// The execution did not fail, and the provider is told this status.
#[track_caller]
fn assert_tells(status: u16, outcome: &Outcome) {
    assert_eq!((&outcome.told, &outcome.failure), (&json!(status), &None));
}

/// The provider is to deliver the message again, and n8n shows a failed execution with these words.
#[track_caller]
fn assert_fails(words: &str, outcome: &Outcome) {
    assert_eq!(outcome.told, 503, "{outcome:?}");
    assert_says(outcome.failure.as_deref().unwrap_or_default(), &[words]);
}

const NO_WORK: fn() = || panic!("no reply to this one");

fn the_n8n_client_answers_each_message_once(world: &World) {
    let session = Session::new();
    let worked = AtomicU32::new(0);
    let work = || {
        world.service.acquire(&session, json!({})).assert_held();
        worked.fetch_add(1, Ordering::Relaxed);
    };
    let run = |message_id: &str, work: &dyn Fn()| {
        let webhook = session.with(json!({"message_id": message_id}));
        run_workflow(|path, body| world.service.post(path, body), &webhook, work)
    };
    assert_tells(200, &run("wamid.1", &work));
    assert_eq!(worked.load(Ordering::Relaxed), 2, "found the reply, and sent it");
    let owner_token = world.service.hold(&session);
    assert_tells(200, &run("wamid.1", &NO_WORK)); // a duplicate
    assert_tells(503, &run("wamid.2", &NO_WORK)); // held
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
    let overruns = || world.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
    assert_tells(503, &run("wamid.2", &overruns)); // lost
}

fn the_n8n_client_takes_numbers_for_ids(world: &World) {
    let session = Session::new();
    let number: u64 = session.prospect.parse().unwrap();
    let webhook = json!({"id_device": session.device, "id_prospect": number, "message_id": 42});
    let post = |path: &str, body| world.service.post(path, body);
    let is_held = || world.service.acquire(&session, json!({})).assert_held();
    assert_tells(200, &run_workflow(post, &webhook, is_held));
    let webhook = session.with(json!({"message_id": "42"}));
    assert_tells(200, &run_workflow(post, &webhook, NO_WORK));
}

fn the_n8n_client_fails_when_it_is_refused(world: &World) {
    let (session, guarded) = (Session::new(), world.serve(&["--api-token", "secret"]));
    let post = |path: &str, body| world.service.post(path, body);
    let no_message_id = session.with(json!({}));
    assert_fails("message_id must be", &run_workflow(post, &no_message_id, NO_WORK));

    let webhook = session.with(json!({"message_id": "wamid.1"}));
    let without_token = |path: &str, body| guarded.post(path, body);
    assert_fails("API token", &run_workflow(without_token, &webhook, NO_WORK));
    // Two of the three nodes lack the token.
    let with_one_token = |path: &str, body| match path {
        "/v1/acquire" => world.service.post(path, body),
        _ => guarded.post(path, body),
    };
    assert_fails("API token", &run_workflow(with_one_token, &webhook, || {}));
}

fn the_n8n_client_shows_a_failed_release_after_the_reply(world: &World) {
    let (session, guarded) = (Session::new(), world.serve(&["--api-token", "secret"]));
    let post = |path: &str, body| match path {
        "/v1/release" => guarded.post(path, body),
        _ => world.service.post(path, body),
    };
    let webhook = session.with(json!({"message_id": "wamid.1"}));
    let outcome = run_workflow(post, &webhook, || {});
    assert_eq!(outcome.told, 200, "{outcome:?}");
    assert_says(&outcome.failure.unwrap(), &["API token"]);
}
