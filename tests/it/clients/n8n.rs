//! The n8n workflow, run as n8n would.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::worker::{CLIENTS, command};
use crate::world::{Session, TABLE, World, tests};

tests![the_n8n_client_answers_each_message_once];

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

/// Runs the workflow for one webhook, as n8n would. Returns the status that the provider is told.
fn run_workflow(world: &World, session: &Session, message_id: &str, work: impl Fn()) -> Value {
    let workflow = fs::read_to_string(Path::new(CLIENTS).join("n8n.json")).unwrap();
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
    let no_work = || panic!("no reply to this one");
    assert_eq!(run_workflow(world, &session, "wamid.1", no_work), 200, "a duplicate");
    assert_eq!(run_workflow(world, &session, "wamid.2", no_work), 503, "held");
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
    let overruns = || world.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
    assert_eq!(run_workflow(world, &session, "wamid.2", overruns), 503, "lost");
}
