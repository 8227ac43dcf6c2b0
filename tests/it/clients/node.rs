//! The ways to load the client in a Node bot, and its types.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::worker::{CLIENTS, command, printed};
use crate::world::{Session, World, tests};

tests![
    the_node_client_loads_by_require_and_by_import,
    the_node_client_can_be_bundled_to_commonjs,
    the_node_client_has_types,
];

/// The body of a CommonJS bot, which takes the ids.
const BOT: &str = r"
const lease = new Lease(...process.argv.slice(2));
console.log(JSON.stringify([(await lease.acquire()).granted, (await lease.release()).released]));
";

const REQUIRE: &str = r#"const { Lease } = require("./session_lock.mjs");"#;

/// A TypeScript bot.
const TYPED_BOT: &str = r#"
import { Lease } from "./session_lock.mjs";

export async function answer(work: () => Promise<{ id: string }>): Promise<string> {
  const lease = new Lease("bot1", "60123456789", "wamid.1", { waitMs: 5000 });
  const answer = await lease.acquire();
  if (!answer.granted) return answer.reason;
  const { renewed } = await lease.renew();
  const reply = await work();
  if (!lease.alive() || !renewed) return `${answer.remaining_ms - 1}`;
  const commit = await lease.commit(reply.id);
  const { released } = await lease.release();
  return commit.committed && released ? commit.how : "lost";
}
// @ts-expect-error: an id is a string
new Lease("bot1", 60123456789);
"#;

/// A folder with the client and a bot.
fn folder(bot: &str, text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["session_lock.mjs", "session_lock.d.mts"] {
        fs::copy(Path::new(CLIENTS).join(file), folder.path().join(file)).unwrap();
    }
    fs::write(folder.path().join(bot), text).unwrap();
    folder
}

fn commonjs_bot(load: &str) -> TempDir {
    folder("bot.cjs", &format!("(async () => {{ {load} {BOT} }})();"))
}

fn runs(world: &World, folder: &TempDir, bot: &str) {
    let session = Session::new();
    let mut node = command(&["node", bot, &session.device, &session.prospect]);
    node.current_dir(folder.path()).env("SESSION_LOCK_URL", world.service.http_url());
    let printed = printed(&mut node, "");
    let answers: Value = serde_json::from_str(&printed.out).expect(&printed.err);
    assert_eq!(answers, json!([true, true]), "{printed:?}");
}

fn the_node_client_loads_by_require_and_by_import(world: &World) {
    // Since 20.19 and 22.12.
    let can_require = printed(&mut command(&["node", "-p", "process.features.require_module"]), "");
    if can_require.out.trim() == "true" {
        runs(world, &commonjs_bot(REQUIRE), "bot.cjs");
    }
    let import = r#"const { Lease } = await import("./session_lock.mjs");"#;
    runs(world, &commonjs_bot(import), "bot.cjs");
}

fn the_node_client_can_be_bundled_to_commonjs(world: &World) {
    let folder = commonjs_bot(REQUIRE);
    let bundle = ["esbuild", "bot.cjs", "--bundle", "--platform=node", "--format=cjs"];
    let mut esbuild = command(&bundle);
    esbuild.args(["--outfile=bundle.js", "--log-level=warning"]).current_dir(folder.path());
    let printed = printed(&mut esbuild, "");
    assert_eq!((printed.status, &*printed.err), (Some(0), ""));
    fs::remove_file(folder.path().join("session_lock.mjs")).unwrap();
    runs(world, &folder, "bundle.js");
}

fn the_node_client_has_types(_world: &World) {
    let folder = folder("bot.mts", TYPED_BOT);
    let mut tsc = command(&["tsc", "--noEmit", "--strict", "--target", "es2022", "bot.mts"]);
    tsc.args(["--module", "nodenext", "--moduleResolution", "nodenext"]);
    let printed = printed(tsc.current_dir(folder.path()), "");
    assert_eq!((printed.status, &*printed.out), (Some(0), ""));
}
