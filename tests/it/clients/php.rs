//! Differences between PHP installations: the place of settings, and the restrictions of php.ini.

use serde_json::{Value, json};

use super::worker::{acquire_once, command, printed};
use crate::world::{Session, World, assert_says, tests};

tests![
    the_php_client_reads_settings_that_only_php_knows,
    the_php_client_says_at_once_that_php_ini_forbids_it,
];

/// A bot whose framework has read a .env file. It takes the ids.
const BOT: &str = r#"
require "session_lock.php";
$lease = new Lease($argv[1], $argv[2]);
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
