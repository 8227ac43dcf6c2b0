//! Webhooks as WhatsApp providers send them: they arrive twice, and workers race and crash.

use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};

use crate::world::{Service, Session, TABLE, World, eventually, tests};

tests![each_webhook_is_answered_once_although_workers_race_and_crash];

/// A webhook of WhatsApp's Cloud API.
fn cloud_api(session: &Session, message: &str) -> Value {
    json!({
        "object": "whatsapp_business_account",
        "entry": [{
            "id": "102290129340398",
            "changes": [{
                "field": "messages",
                "value": {
                    "messaging_product": "whatsapp",
                    "metadata": {"display_phone_number": "15550783881", "phone_number_id": session.device},
                    "contacts": [{"profile": {"name": "Sheena"}, "wa_id": session.prospect}],
                    "messages": [{
                        "from": session.prospect, "id": message, "timestamp": "1749416383", "type": "text",
                        "text": {"body": "Does it come in another colour?"},
                    }],
                },
            }],
        }],
    })
}

/// A webhook of WAHA.
fn waha(session: &Session, message: &str) -> Value {
    json!({
        "id": "evt_01aaaaaaaaaaaaaaaaaaaaaaaa",
        "event": "message",
        "session": session.device,
        "engine": "WEBJS",
        "payload": {
            "id": message, "timestamp": 1_749_416_383, "from": session.prospect, "fromMe": false,
            "body": "Hi there!", "hasMedia": false, "ack": 1,
        },
    })
}

struct Message {
    session: Session,
    id: String,
}

impl Message {
    fn parse(webhook: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        if webhook["object"] == "whatsapp_business_account" {
            let value = &webhook["entry"][0]["changes"][0]["value"];
            let message = &value["messages"][0];
            let device = text(&value["metadata"]["phone_number_id"]);
            return Self {
                session: Session { device, prospect: text(&message["from"]) },
                id: text(&message["id"]),
            };
        }
        let payload = &webhook["payload"];
        let session =
            Session { device: text(&webhook["session"]), prospect: text(&payload["from"]) };
        Self { session, id: text(&payload["id"]) }
    }
}

/// A bot whose replies are counted and not sent.
struct Bot<'a> {
    service: &'a Service,
    replies: Mutex<Vec<String>>,
    rejected: Mutex<Vec<String>>,
}

impl Bot<'_> {
    /// Handles a webhook, and works until this many copies of it have been rejected.
    fn receive(&self, webhook: &Value, copies: usize) {
        let message = Message::parse(webhook);
        let reply = self.service.acquire(&message.session, json!({}));
        if reply.status == 409 {
            self.rejected.lock().unwrap().push(message.id);
            return;
        }
        reply.assert_granted("new");
        let of_this =
            || self.rejected.lock().unwrap().iter().filter(|id| **id == message.id).count();
        eventually(|| "the copies are rejected", || (of_this() == copies).then_some(()));
        self.replies.lock().unwrap().push(message.id);
        let released = self.service.release(&message.session, &reply.text("owner_token"));
        assert_eq!(released.status, 200);
    }
}

fn each_webhook_is_answered_once_although_workers_race_and_crash(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let bot = Bot { service: &service, replies: Mutex::default(), rejected: Mutex::default() };

    // Each message arrives one to three times at once. The customer gets one reply to each.
    let customers: Vec<_> = (0..6).map(|_| Session::new()).collect();
    for (number, customer) in customers.iter().enumerate() {
        let id = format!("wamid.HBgL{number}");
        let webhook = if number % 2 == 0 { cloud_api(customer, &id) } else { waha(customer, &id) };
        let copies = 1 + number % 3;
        thread::scope(|scope| {
            (0..copies).for_each(|_| {
                scope.spawn(|| bot.receive(&webhook, copies - 1));
            });
        });
    }
    let replies = bot.replies.lock().unwrap().clone();
    assert_eq!(replies, (0..6).map(|number| format!("wamid.HBgL{number}")).collect::<Vec<_>>());

    // A copy that arrives 2 s later, while the first is still in progress, is rejected.
    let customer = &customers[0];
    let working = service.acquire(customer, json!({}));
    working.assert_granted("new");
    schema.age(customer, 2);
    service.acquire(customer, json!({})).assert_held();
    // The next message, right after the release, is answered.
    assert_eq!(service.release(customer, &working.text("owner_token")).status, 200);
    bot.receive(&waha(customer, "next"), 0);
    // A worker crashes; 30 s later the session is free again.
    let crashed = service.hold(customer);
    schema.age(customer, 28);
    service.acquire(customer, json!({})).assert_held();
    schema.age(customer, 3);
    let successor = service.acquire(customer, json!({}));
    successor.assert_granted("takeover");
    assert_eq!(service.release(customer, &crashed).status, 409);
    assert_eq!(service.release(customer, &successor.text("owner_token")).status, 200);

    let count = schema.rows::<u64>(&format!("SELECT COUNT(*) FROM {TABLE}"));
    assert_eq!(count, [0], "an idle system has an empty table");
}
