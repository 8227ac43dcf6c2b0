//! Login methods, and logins that cannot succeed.

use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use serde_json::json;
use session_lock::testing::DATABASE;

use crate::world::{
    DatabaseServer, Engine, Fault, Proxy, Service, Session, World, assert_says, eventually,
    run_check, run_serve, tests,
};

tests![
    users_log_in_by_every_known_plugin_and_an_unknown_one_is_one_line,
    a_service_outlives_a_user_whose_plugin_changes_and_asks_less_and_less_often,
    what_the_driver_cannot_read_ends_neither_a_command_nor_the_service,
];

const PARSEC: &str = "IDENTIFIED VIA parsec USING PASSWORD('pw')";

/// The first version of MariaDB with the plugin parsec.
const PARSEC_SINCE: (u16, u16, u16) = (11, 6, 1);

/// Login methods: a clause of `CREATE USER`, and the error text if the method is not supported.
fn plugins(engine: Engine) -> &'static [(&'static str, &'static str)] {
    match engine {
        Engine::MariaDb(_) => &[
            ("IDENTIFIED BY 'pw'", ""),
            ("IDENTIFIED VIA ed25519 USING PASSWORD('pw')", ""),
            (PARSEC, ""),
            ("IDENTIFIED VIA pam", "the plugin dialog,"),
            ("IDENTIFIED VIA mysql_old_password USING '6f8c114b58f2ce9e'", "in the old format"),
        ],
        Engine::MySql => &[
            ("IDENTIFIED BY 'pw'", ""),
            ("IDENTIFIED WITH caching_sha2_password BY 'pw'", ""),
            ("IDENTIFIED WITH sha256_password BY 'pw'", "the plugin sha256_password,"),
        ],
    }
}

fn unknown_plugin(engine: Engine) -> &'static str {
    match engine {
        Engine::MariaDb(_) => "IDENTIFIED VIA pam",
        Engine::MySql => "IDENTIFIED WITH sha256_password BY 'pw'",
    }
}

fn start_server(engine: Engine) -> (DatabaseServer, mysql::Conn) {
    let server = DatabaseServer::start_migrated(engine, &[]);
    let mut root = server.connect();
    if engine != Engine::MySql {
        root.query_drop("INSTALL SONAME 'auth_ed25519'").unwrap();
        root.query_drop("INSTALL SONAME 'auth_pam'").unwrap();
        if root.server_version() >= PARSEC_SINCE {
            root.query_drop("INSTALL SONAME 'auth_parsec'").unwrap();
        }
    }
    (server, root)
}

fn users_log_in_by_every_known_plugin_and_an_unknown_one_is_one_line(world: &World) {
    let (database, mut root) = start_server(world.engine);
    let has_parsec = root.server_version() >= PARSEC_SINCE;
    let plugins =
        plugins(world.engine).iter().filter(|(plugin, _)| *plugin != PARSEC || has_parsec);
    for (number, (plugin, said)) in plugins.enumerate() {
        let user = format!("bot_{number}");
        root.query_drop(format!("CREATE USER {user}@'%' {plugin}")).unwrap();
        root.query_drop(format!("GRANT ALL ON {DATABASE}.* TO {user}@'%'")).unwrap();
        let url = database.url(DATABASE).replace("root@", &format!("{user}:pw@"));
        let checked = run_check(&url);
        if said.is_empty() {
            assert_eq!(checked.status, Some(0), "{plugin}: {checked:?}");
            Service::start(&url, &[]).hold(&Session::new());
            continue;
        }
        let served = run_serve(&url);
        assert_eq!((checked.status, served.status), (Some(1), Some(1)), "{checked:?} {served:?}");
        assert_says(&checked.out, &["problem  login", said, "ALTER USER"]);
        assert_eq!(checked.out.lines().count(), 1, "{checked:?}");
        assert_eq!(checked.err, "");
        let lines: Vec<_> = served.err.lines().filter(|line| !line.starts_with("INFO")).collect();
        assert_eq!(lines, [checked.out.trim_end()]);
    }
}

fn a_service_outlives_a_user_whose_plugin_changes_and_asks_less_and_less_often(world: &World) {
    let (database, mut root) = start_server(world.engine);
    root.query_drop("CREATE USER bot@'%' IDENTIFIED BY 'pw'").unwrap();
    root.query_drop(format!("GRANT ALL ON {DATABASE}.* TO bot@'%'")).unwrap();
    let proxy = Proxy::start(database.address());
    let url = proxy.url(DATABASE).replace("root@", "bot:pw@");
    let mut service = Service::start(&url, &[]);
    service.recovery();
    root.query_drop(format!("ALTER USER bot@'%' {}", unknown_plugin(world.engine))).unwrap();
    proxy.redirect(database.address());
    let refused = || {
        let reply = service.acquire(&Session::new(), json!({}));
        (reply.status == 503 && reply.text.contains("logs in with the plugin")).then_some(())
    };
    eventually(|| "a 503 that names the plugin", refused);
    let before = proxy.connections();
    thread::sleep(Duration::from_secs(5));
    // The pauses are 0.5, 1, 2 and 4 s.
    let tries = proxy.connections() - before;
    assert!((1..=4).contains(&tries), "{tries} tries");
    refused().expect("a 503 that names the plugin");
    assert!(service.try_wait().is_none());
    let known_plugin = match world.engine {
        Engine::MariaDb(_) => "IDENTIFIED BY 'pw'",
        Engine::MySql => "IDENTIFIED WITH caching_sha2_password BY 'pw'",
    };
    root.query_drop(format!("ALTER USER bot@'%' {known_plugin}")).unwrap();
    eventually(|| "it is ready again", || (service.get("/readyz").status == 200).then_some(()));
    service.hold(&Session::new());
}

fn what_the_driver_cannot_read_ends_neither_a_command_nor_the_service(world: &World) {
    let (proxy, mut service) = world.serve_through_proxy(&[]);
    service.recovery();
    proxy.set(Fault::EmptyReplies);
    // For existing connections and for new ones.
    for _ in 0..10 {
        service.acquire(&Session::new(), json!({})).assert_refused(503, "unavailable");
    }
    let checked = run_check(&proxy.url(DATABASE));
    assert_eq!(checked.status, Some(1), "{checked:?}");
    assert_says(
        &checked.out,
        &["problem  server", "cannot be used", "cannot read what the server sent"],
    );
    assert!(!checked.out.contains("is it running"), "{checked:?}");
    proxy.set(Fault::None);
    eventually(|| "it is ready again", || (service.get("/readyz").status == 200).then_some(()));
    service.hold(&Session::new());
    assert!(service.try_wait().is_none());
    let ended = service
        .log()
        .iter()
        .any(|line| line.contains("a bug ended") || line.contains("a bug in session-lock"));
    assert!(!ended, "{:#?}", service.log());
}
