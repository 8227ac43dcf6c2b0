//! The Python client in asyncio, as its README shows it.

use serde_json::{Value, json};

use super::worker::{Worker, command};
use crate::world::{Session, World, tests};

tests![the_python_client_waits_in_asyncio_beside_others];

/// Runs the README's code in a function, for a given number of messages at once.
const BOT: &str = r#"
import asyncio, json, re, sys, textwrap, types

device, prospect, count = sys.argv[1:]
blocks = re.findall("```python\n(.*?)```", open("README.md").read(), re.S)
block = next(block for block in blocks if "asyncio" in block)
for shown, value in {"bot1": device, "60123456789": prospect}.items():
    block = block.replace(f'"{shown}"', json.dumps(value))
block = block.replace('"wamid.1"', "message_id").replace("wait_ms=5000", "wait_ms=25000")
imports, pool, body = block.split("\n\n", 2)
sent = []

async def work():
    return types.SimpleNamespace(id="r-17")

async def send(reply):
    sent.append(reply.id)

exec(f"{imports}\n{pool}\nasync def answer(message_id):\n" + textwrap.indent(body, "    "))

async def main():
    reasons = await asyncio.gather(*(answer(f"wamid.{number}") for number in range(int(count))))
    print(json.dumps([len(sent), reasons]))

asyncio.run(main())
"#;

/// More than the number of threads of `asyncio.to_thread` on a small machine.
const MESSAGES: usize = 20;

fn the_python_client_waits_in_asyncio_beside_others(world: &World) {
    let session = Session::new();
    let Session { device, prospect } = &session;
    let start = || {
        let mut bot = command(&["python3", "-c", BOT, device, prospect, &MESSAGES.to_string()]);
        Worker::spawn(bot.env("SESSION_LOCK_URL", world.service.http_url()))
    };
    let owner_token = world.service.hold(&session);
    let mut bot = start();
    world.service.wait_for_waiters(&session, MESSAGES.try_into().unwrap());
    assert_eq!(world.service.release(&session, &owner_token).status, 200);
    assert_eq!(bot.answer(), json!([MESSAGES, vec![Value::Null; MESSAGES]]));
    assert_eq!(world.stored(&session), None);
    assert_eq!(start().answer(), json!([0, vec!["duplicate"; MESSAGES]]));
}
