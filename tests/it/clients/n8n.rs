//! The n8n workflow, without n8n. `make n8n` sends the same cases through a real one.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::worker::CLIENTS;
use super::workflow::{Outcome, Outside, node, run_workflow, workflow};
use crate::world::{Reply, Service, Session, TABLE, World, assert_says, tests};

tests![
    the_n8n_client_answers_each_message_once,
    the_n8n_client_takes_numbers_for_ids,
    the_n8n_client_fails_when_it_is_refused,
    the_n8n_client_tells_the_provider_of_every_failure,
    the_n8n_client_asks_for_a_commit_until_it_is_answered,
    the_n8n_client_shows_statuses_that_are_no_answers,
    the_n8n_client_shows_a_failed_release_after_the_reply,
    the_n8n_client_has_the_documented_address,
    the_n8n_client_commits_once_for_several_items,
];

/// Asserts that the execution did not fail, and that the provider got this status.
#[track_caller]
fn assert_tells(status: u64, outcome: &Outcome) {
    assert_eq!((outcome.told, &outcome.failure), (status, &None));
}

/// Asserts that the provider must deliver the message again, and that n8n shows a failed execution
/// with this text.
#[track_caller]
fn assert_fails(words: &str, outcome: &Outcome) {
    assert_eq!(outcome.told, 503, "{outcome:?}");
    assert_says(outcome.failure.as_deref().unwrap_or_default(), &[words]);
}

const NO_WORK: fn() = || panic!("no reply to this one");

/// Delivers a message. Only the requests that the service refuses fail.
fn deliver(service: &Service, webhook: &Value, work: &dyn Fn()) -> Outcome {
    deliver_through(&|path, body| Some(service.post(path, body)), webhook, work)
}

fn deliver_through(
    post: &dyn Fn(&str, String) -> Option<Reply>,
    webhook: &Value,
    work: &dyn Fn(),
) -> Outcome {
    run_workflow(&Outside { post, work, fails: &[] }, webhook)
}

/// An answer from a gateway between the workflow and the service.
fn answer_of_a_gateway(status: u16) -> Reply {
    let json = json!({"error": {"message": "of the gateway"}});
    Reply { status, text: json.to_string(), json, retry_after_s: None }
}

fn the_n8n_client_answers_each_message_once(world: &World) {
    let session = Session::new();
    let worked = Cell::new(0);
    let work = || {
        world.service.acquire(&session, json!({})).assert_held();
        worked.set(worked.get() + 1);
    };
    let deliver = |message_id: &str, work: &dyn Fn()| {
        deliver(&world.service, &session.with(json!({"message_id": message_id})), work)
    };
    assert_tells(200, &deliver("wamid.1", &work));
    assert_eq!(worked.get(), 2, "found the reply, and sent it");
    assert_eq!(world.stored(&session), None);
    let owner_token = world.service.hold(&session);
    assert_tells(200, &deliver("wamid.1", &NO_WORK)); // a duplicate
    assert_tells(503, &deliver("wamid.2", &NO_WORK)); // held
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
}

fn the_n8n_client_takes_numbers_for_ids(world: &World) {
    let session = Session::new();
    let number: u64 = session.prospect.parse().unwrap();
    let webhook = json!({"id_device": session.device, "id_prospect": number, "message_id": 42});
    let is_held = || world.service.acquire(&session, json!({})).assert_held();
    assert_tells(200, &deliver(&world.service, &webhook, &is_held));
    let webhook = session.with(json!({"message_id": "42"}));
    assert_tells(200, &deliver(&world.service, &webhook, &NO_WORK));
}

fn the_n8n_client_fails_when_it_is_refused(world: &World) {
    let (session, guarded) = (Session::new(), world.serve(&["--api-token", "secret"]));
    let webhook = session.with(json!({"message_id": "wamid.1"}));
    for id in ["id_device", "id_prospect", "message_id"] {
        let mut incomplete = webhook.clone();
        incomplete.as_object_mut().unwrap().remove(id);
        let outcome = deliver(&world.service, &incomplete, &NO_WORK);
        assert_fails(&format!("{id} must be"), &outcome);
    }
    assert_fails("API token", &deliver(&guarded, &webhook, &NO_WORK));
    // Commit lacks the token.
    let post = |path: &str, body| match path {
        "/v1/commit" => Some(guarded.post(path, body)),
        _ => Some(world.service.post(path, body)),
    };
    assert_fails("API token", &deliver_through(&post, &webhook, &|| {}));
    assert_eq!(world.stored(&session), None);
}

fn the_n8n_client_tells_the_provider_of_every_failure(world: &World) {
    let session = Session::new();
    let webhook = session.with(json!({"message_id": "wamid.1"}));
    let run = |post: &dyn Fn(&str, String) -> Option<Reply>, fails: &[&str]| {
        run_workflow(&Outside { post, work: &|| {}, fails }, &webhook)
    };
    let post = |path: &str, body| Some(world.service.post(path, body));
    assert_fails("ECONNREFUSED", &run(&|_, _| None, &[]));
    for name in ["Draw owner token", "Ids", "Acquire", "The bot's work", "Commit"] {
        assert_fails(name, &run(&post, &[name]));
        assert_eq!(world.stored(&session), None, "{name}: the lease comes back at once");
    }
    assert_fails("The bot's work", &run(&post, &["The bot's work", "Give back"]));
    world.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
    // The last node: the message is already committed.
    assert_fails("Send the reply", &run(&post, &["Send the reply"]));
    assert_eq!(world.stored(&session), None);
}

fn the_n8n_client_asks_for_a_commit_until_it_is_answered(world: &World) {
    let session = Session::new();
    let webhook = session.with(json!({"message_id": "wamid.1"}));
    let asked = RefCell::new(Vec::new());
    let releases = Cell::new(0);
    let deliver = |unavailable: usize, work: &dyn Fn()| {
        asked.borrow_mut().clear();
        let post = |path: &str, body: String| {
            let mut asked = asked.borrow_mut();
            match path {
                "/v1/commit" => asked.push(body.clone()),
                "/v1/release" => releases.set(releases.get() + 1),
                _ => {}
            }
            if path == "/v1/commit" && asked.len() <= unavailable {
                return Some(answer_of_a_gateway(503));
            }
            Some(world.service.post(path, body))
        };
        deliver_through(&post, &webhook, work)
    };
    // Lost: a retry does not help.
    let overruns = || world.sql(format!("DELETE FROM {TABLE} WHERE {session}"));
    assert_tells(503, &deliver(0, &overruns));
    assert_eq!((asked.borrow().len(), releases.get()), (1, 1));

    assert_tells(503, &deliver(usize::MAX, &|| {}));
    assert_eq!(asked.borrow().len(), 5);
    assert_eq!(world.stored(&session), None);

    let worked = Cell::new(0);
    assert_tells(200, &deliver(4, &|| worked.set(worked.get() + 1)));
    assert_eq!(worked.get(), 2, "found the reply, and sent it");
    let asked = asked.borrow();
    assert!(asked.iter().all(|body| *body == asked[0]), "{asked:?}");
}

fn the_n8n_client_shows_statuses_that_are_no_answers(world: &World) {
    let session = Session::new();
    let webhook = session.with(json!({"message_id": "wamid.1"}));
    for route in ["/v1/acquire", "/v1/commit"] {
        for status in [400, 401, 404, 413, 500, 502] {
            let post = |path: &str, body| {
                let is_refused = path == route;
                Some(if is_refused {
                    answer_of_a_gateway(status)
                } else {
                    world.service.post(path, body)
                })
            };
            let outcome = deliver_through(&post, &webhook, &|| {});
            assert_fails("of the gateway", &outcome);
            assert_eq!(world.stored(&session), None);
        }
    }
    // Not ready, as while the database restarts.
    let post = |_: &str, _| Some(answer_of_a_gateway(503));
    assert_tells(503, &deliver_through(&post, &webhook, &NO_WORK));
}

fn the_n8n_client_shows_a_failed_release_after_the_reply(world: &World) {
    let (session, guarded) = (Session::new(), world.serve(&["--api-token", "secret"]));
    let post = |path: &str, body| match path {
        "/v1/release" => Some(guarded.post(path, body)),
        _ => Some(world.service.post(path, body)),
    };
    let webhook = session.with(json!({"message_id": "wamid.1"}));
    let outcome = deliver_through(&post, &webhook, &|| {});
    assert_eq!(outcome.told, 200, "{outcome:?}");
    assert_says(&outcome.failure.unwrap(), &["API token"]);
}

fn the_n8n_client_has_the_documented_address(_world: &World) {
    let workflow = workflow();
    let webhook = node(&workflow, "Webhook");
    // Without a webhook id, an import on the command line puts the workflow's id before the path.
    assert!(webhook["webhookId"].as_str().is_some_and(|id| !id.is_empty()), "{webhook}");
    let path = webhook["parameters"]["path"].as_str().unwrap();
    let readme = fs::read_to_string(Path::new(CLIENTS).join("README.md")).unwrap();
    assert_says(&readme, &[&format!("/webhook/{path}`")]);
}

/// Otherwise each item of the bot's work would be committed, the later ones as `again`, and sent.
fn the_n8n_client_commits_once_for_several_items(_world: &World) {
    let workflow = workflow();
    assert_eq!(node(&workflow, "Commit")["executeOnce"], true);
}
