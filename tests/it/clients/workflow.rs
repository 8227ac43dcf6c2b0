//! Runs the n8n workflow as n8n 1.123 does, without n8n: `tests/n8n` compares with the real one.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::worker::{CLIENTS, Worker, command};
use crate::world::Reply;

/// Evaluates the expressions of n8n: `$json` is the current item, `$('Node')` the output of a node,
/// and `$runIndex` the number of earlier runs of the current node.
const FILL_IN: &str = r#"
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { template, $json, nodes, $runIndex } = JSON.parse(line);
  const $ = (name) => ({
    isExecuted: name in nodes,
    first(output = 0) {
      if (!(name in nodes)) throw new Error(`${name} has not been executed`);
      return nodes[name][output];
    },
  });
  const evaluate = (code) => new Function("$", "$json", "$runIndex", `return (${code})`)($, $json, $runIndex);
  const [, only] = template.match(/^=\{\{((?:(?!\}\}).)*)\}\}$/) ?? [];
  const text = () => template.replace(/^=/, "").replace(/\{\{(.*?)\}\}/g, (_, code) => evaluate(code));
  console.log(JSON.stringify((only ? evaluate(only) : text()) ?? null));
});
"#;

pub fn workflow() -> Value {
    let text = fs::read_to_string(Path::new(CLIENTS).join("n8n.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn node<'a>(workflow: &'a Value, name: &str) -> &'a Value {
    let mut nodes = workflow["nodes"].as_array().unwrap().iter();
    nodes.find(|node| node["name"] == name).expect(name)
}

/// The systems outside of n8n that the workflow uses.
pub struct Outside<'a> {
    /// Sends a request to the service, which may not answer.
    pub post: &'a dyn Fn(&str, String) -> Option<Reply>,
    /// The bot's work, and the sending of the reply.
    pub work: &'a dyn Fn(),
    /// The nodes that fail.
    pub fails: &'a [&'a str],
}

/// The result of one webhook.
#[derive(Debug)]
pub struct Outcome {
    /// The status that the provider gets.
    pub told: u64,
    /// The message of a failed execution.
    pub failure: Option<String>,
}

/// The status that n8n itself sends to the provider if an execution ends, with or without success,
/// and no node has answered.
const TOLD_BY_N8N: u64 = 200;

pub fn run_workflow(outside: &Outside<'_>, webhook: &Value) -> Outcome {
    let workflow = workflow();
    let expressions = Worker::spawn(&mut command(&["node", "--eval", FILL_IN]));
    let mut run = Run { outside, expressions, outputs: json!({}), runs: json!({}), told: None };
    let (mut name, mut item) = ("Webhook", json!({"body": webhook}));
    let failure = loop {
        let node = node(&workflow, name);
        let runs = run.runs[name].as_u64().unwrap_or_default();
        let (put_out, output) = match run.execute(node, &item, runs) {
            Ok(done) => done,
            Err(error) if node["onError"] == "continueErrorOutput" => (json!({"error": error}), 1),
            Err(error) => break Some(error["message"].as_str().unwrap().to_owned()),
        };
        run.runs[name] = (runs + 1).into();
        item = put_out;
        run.outputs[name] = json!([null, null, null]);
        run.outputs[name][output] = json!({"json": item});
        let next = &workflow["connections"][name]["main"][output];
        assert!(next[1].is_null(), "{name} continues in two places");
        match next[0]["node"].as_str() {
            Some(next) => name = next,
            None => break None,
        }
    };
    Outcome { told: run.told.unwrap_or(TOLD_BY_N8N), failure }
}

struct Run<'a> {
    outside: &'a Outside<'a>,
    expressions: Worker,
    /// The last items of each node, for each of its outputs.
    outputs: Value,
    /// The number of runs of each node.
    runs: Value,
    told: Option<u64>,
}

impl Run<'_> {
    fn fill_in(&mut self, template: &Value, item: &Value, runs: u64) -> Value {
        let nodes = &self.outputs;
        let expression =
            json!({"template": template, "$json": item, "nodes": nodes, "$runIndex": runs});
        self.expressions.tell(&expression.to_string())
    }

    /// The item that a node puts out and the number of its output, or its error.
    fn execute(&mut self, node: &Value, item: &Value, runs: u64) -> Result<(Value, usize), Value> {
        let name = node["name"].as_str().unwrap();
        if self.outside.fails.contains(&name) {
            return Err(json!({"message": format!("{name} has failed")}));
        }
        let parameters = &node["parameters"];
        let mut put_out = item.clone();
        let mut output = 0;
        match node["type"].as_str().unwrap().rsplit('.').next().unwrap() {
            "webhook" | "wait" => {}
            "crypto" => put_out["digits"] = json!("0f1e2d".repeat(20)),
            "set" => put_out = self.set(parameters, item),
            "noOp" if name == "No reply" => {}
            "noOp" => (self.outside.work)(),
            "httpRequest" => put_out = self.request(node, item)?,
            "if" => {
                output = usize::from(!self.holds(&parameters["conditions"], item, runs));
            }
            "switch" => {
                let rules = parameters["rules"]["values"].as_array().unwrap();
                let mut rules = rules.iter().map(|rule| &rule["conditions"]);
                let count = rules.len();
                output = rules.position(|rule| self.holds(rule, item, runs)).unwrap_or(count);
            }
            "respondToWebhook" => self.respond(&parameters["options"], item),
            "stopAndError" => {
                return Err(json!({
                    "message": self.fill_in(&parameters["errorMessage"], item, runs)
                }));
            }
            other => panic!("{name} is a {other}"),
        }
        Ok((put_out, output))
    }

    fn set(&mut self, parameters: &Value, item: &Value) -> Value {
        let assignments = parameters["assignments"]["assignments"].as_array().unwrap();
        let mut set = |field: &Value| {
            let name = field["name"].as_str().unwrap().to_owned();
            (name, self.fill_in(&field["value"], item, 0))
        };
        assignments.iter().map(&mut set).collect::<Map<_, _>>().into()
    }

    fn holds(&mut self, conditions: &Value, item: &Value, runs: u64) -> bool {
        let condition = &conditions["conditions"][0]["leftValue"];
        self.fill_in(condition, item, runs).as_bool().unwrap()
    }

    fn respond(&mut self, options: &Value, item: &Value) {
        for header in options["responseHeaders"]["entries"].as_array().into_iter().flatten() {
            let value = self.fill_in(&header["value"], item, 0).to_string();
            assert!(value.trim_matches('"').parse::<u8>().is_ok(), "{header}: {value}");
        }
        assert!(self.told.is_none(), "the provider gets a second answer");
        self.told = options["responseCode"].as_u64();
    }

    /// Sends a request, and repeats it after errors up to the limit of the node.
    fn request(&mut self, node: &Value, item: &Value) -> Result<Value, Value> {
        let parameters = &node["parameters"];
        let url = self.fill_in(&parameters["url"], item, 0);
        let path = url.as_str().unwrap().strip_prefix("http://127.0.0.1:7099").unwrap();
        let body = self.fill_in(&parameters["jsonBody"], item, 0);
        let tries =
            if node["retryOnFail"] == true { node["maxTries"].as_u64().unwrap() } else { 1 };
        let mut error = Value::Null;
        for _ in 0..tries {
            let reply = (self.outside.post)(path, body.as_str().unwrap().to_owned());
            match reply {
                Some(reply) => match read_reply(parameters, reply) {
                    Ok(put_out) => return Ok(put_out),
                    Err(refusal) => error = refusal,
                },
                None => error = json!({"message": "ECONNREFUSED"}),
            }
        }
        Err(error)
    }
}

fn read_reply(parameters: &Value, reply: Reply) -> Result<Value, Value> {
    let Reply { status, json, retry_after_s, .. } = reply;
    if parameters["options"]["response"]["response"]["neverError"] == true {
        let headers = json!({"retry-after": retry_after_s});
        return Ok(json!({"body": json, "headers": headers, "statusCode": status}));
    }
    if status == 200 {
        return Ok(json);
    }
    Err(json!({"message": format!("{status} - {json}"), "status": status}))
}
