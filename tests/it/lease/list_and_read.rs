//! The operator's view: lists, forced release from the command line, the sweep of stale rows.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Service, Session, TABLE, World, eventually, run, tests};

tests![
    pages_show_every_lease_that_holds_once,
    a_page_of_one_device_has_only_that,
    wrong_parameters_of_a_list_are_refused,
    a_page_of_many_rows_uses_the_primary_key,
    list_prints_a_table_for_people_and_json_for_programs,
    release_force_ends_a_lease_from_the_command_line,
    commands_say_when_there_is_no_server,
    rows_of_crashed_holders_are_swept_and_no_others,
];

fn own_service(world: &World) -> (crate::world::Schema<'_>, Service) {
    let schema = world.own_table();
    let service = Service::start(&schema.url(), &[]);
    (schema, service)
}

/// Fills the table with rows of an old program.
fn fill(conn: &mut mysql::Conn, rows: u64) {
    // MySQL's name for it, and MariaDB's.
    for limit in ["cte_max_recursion_depth", "max_recursive_iterations"] {
        conn.query_drop(format!("SET SESSION {limit} = 100000")).ok();
    }
    conn.query_drop(format!(
        "INSERT INTO {TABLE} (id_device, id_prospect, timestamp) \
         WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
         SELECT 'bot', CONCAT('60', i), NOW() FROM n"
    ))
    .unwrap();
}

fn pages_show_every_lease_that_holds_once(world: &World) {
    let (schema, service) = own_service(world);
    let mut held = HashSet::new();
    let mut tokens = Vec::new();
    for number in 0..25 {
        let session = Session::new();
        tokens.push(service.hold(&session));
        if number % 5 == 0 {
            crate::world::age(&mut schema.connect(), &session, 31);
        } else {
            held.insert(session.prospect);
        }
    }
    let legacy = Session::new();
    schema.sql(&format!(
        "INSERT INTO {TABLE} (id_device, id_prospect, timestamp) VALUES ('{}', '{}', NOW()), ('d', 'garbage', 'x')",
        legacy.device, legacy.prospect
    ));
    held.insert(legacy.prospect.clone());
    let mut seen = HashSet::new();
    let mut path = "/v1/locks?limit=4".to_owned();
    loop {
        let page = service.get(&path);
        assert_eq!(page.status, 200, "{page:?}");
        assert!(tokens.iter().all(|token| !page.json.to_string().contains(token)));
        for lock in page.json["locks"].as_array().unwrap() {
            let prospect = lock["id_prospect"].as_str().unwrap().to_owned();
            assert_eq!(lock["legacy"], json!(prospect == legacy.prospect));
            assert_eq!(lock["fencing_token"].is_null(), prospect == legacy.prospect);
            assert!(lock["remaining_ms"].as_u64().unwrap() > 0);
            assert!(seen.insert(prospect), "twice: {lock}");
        }
        let Some(next) = page.json["next"].as_str() else {
            break;
        };
        path = format!("/v1/locks?limit=4&after={next}");
    }
    assert_eq!(seen, held);
    let all = service.get("/v1/locks?limit=27");
    assert!(all.json.get("next").is_none(), "{all:?}");
}

fn a_page_of_one_device_has_only_that(world: &World) {
    let (_schema, service) = own_service(world);
    let device = "bot 1/%é".replace('é', "e");
    for prospect in ["1", "2"] {
        service.hold(&Session { device: device.clone(), prospect: prospect.to_owned() });
        service.hold(&Session { device: "other".to_owned(), prospect: prospect.to_owned() });
    }
    let page = service.get("/v1/locks?id_device=BOT%201%2F%25e&limit=1");
    let (first, next) = (page.json["locks"].as_array().unwrap(), page.text("next"));
    let first = first.clone();
    let page = service.get(&format!("/v1/locks?id_device=bot%201%2F%25e&limit=5&after={next}"));
    assert!(page.json.get("next").is_none(), "{page:?}");
    let second = page.json["locks"].as_array().unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    let mut prospects = [&first[0], &second[0]].map(|lock| lock["id_prospect"].as_str().unwrap());
    prospects.sort_unstable();
    assert_eq!(prospects, ["1", "2"]);
}

fn wrong_parameters_of_a_list_are_refused(world: &World) {
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "after=x",
        "device=a",
        "id_device=",
        "id_device=%ff",
    ] {
        let message =
            world.service.get(&format!("/v1/locks?{query}")).assert_refused(400, "invalid_request");
        assert!(message.starts_with(query.split('=').next().unwrap()), "{message}");
    }
}

fn a_page_of_many_rows_uses_the_primary_key(world: &World) {
    let (schema, service) = own_service(world);
    let mut conn = schema.connect();
    fill(&mut conn, 20_000);
    let statements: Vec<String> = conn.query(format!("SELECT COUNT(*) FROM {TABLE}")).unwrap();
    assert_eq!(statements, ["20000"]);
    // A hundred from the middle reads a hundred rows, not 20,000: the server counts them.
    let read_rows = |conn: &mut mysql::Conn| -> u64 {
        let rows: Vec<(String, u64)> =
            conn.query("SHOW SESSION STATUS LIKE 'Handler_read%'").unwrap();
        rows.iter().map(|(_, count)| count).sum()
    };
    let sql = include_str!("../../../sql/lease/list.sql");
    let code: Vec<_> = sql.lines().filter(|line| !line.starts_with("--")).collect();
    let code = code.join(" ").replace("{key}", "id_sessionX").replace("{table}", TABLE);
    for (device, limit) in [("NULL", 100), ("'nobody'", 1_000)] {
        let page = code
            .replace(":after", "10000")
            .replace(":limit", &limit.to_string())
            .replace(":id_device", device);
        let before = read_rows(&mut conn);
        let rows: Vec<mysql::Row> = conn.query(page).unwrap();
        let read = read_rows(&mut conn) - before;
        assert_eq!(rows.len(), limit);
        assert!(read <= limit as u64 + 50, "{read} rows read for {limit}");
    }
    let page = service.get("/v1/locks?limit=100&after=10000");
    assert_eq!(page.json["locks"].as_array().unwrap().len(), 100);
}

fn list_prints_a_table_for_people_and_json_for_programs(world: &World) {
    let (_schema, service) = own_service(world);
    let session = Session::new();
    let owner_token = service.hold(&session);
    service.hold(&Session::new());
    let url = format!("http://{}", service.address);
    let printed = run(&["list", "--url", &url]);
    assert_eq!((printed.status, printed.out.lines().count()), (Some(0), 3), "{printed:?}");
    assert!(printed.out.contains(&session.prospect) && !printed.out.contains(&owner_token));
    let printed = run(&["list", "--json", "--device", &session.device, "--url", &url]);
    let locks: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(locks.as_array().unwrap().len(), 1);
    assert_eq!(locks[0]["id_prospect"], json!(session.prospect));
}

fn release_force_ends_a_lease_from_the_command_line(world: &World) {
    let session = Session::new();
    let fencing_token = world.service.acquire(&session, json!({})).number("fencing_token");
    let url = format!("http://{}", world.service.address);
    let release = |more: &[&str]| {
        let ids = [
            "release",
            "--url",
            &url,
            "--device",
            &session.device,
            "--prospect",
            &session.prospect,
        ];
        run(&[&ids, more].concat())
    };
    assert_eq!(release(&[]).status, Some(2), "without --force");
    assert_eq!(release(&["--force", "--fencing-token", "1"]).status, Some(1));
    assert_eq!(
        release(&["--force", "--fencing-token", &fencing_token.to_string()]).status,
        Some(0)
    );
    assert_eq!(world.stored(&session), None);
    let line = world
        .service
        .wait_for_line(&format!("released by force id_prospect=\"{}\"", session.prospect));
    assert!(
        line.contains("by 127.0.0.1:") && line.contains(&format!("fencing_token={fencing_token}")),
        "{line}"
    );
    assert_eq!(release(&["--force"]).status, Some(1));
}

fn commands_say_when_there_is_no_server(world: &World) {
    let closed = format!("http://127.0.0.1:{}", crate::world::free_port());
    for command in [
        &["list", "--url", &closed][..],
        &["release", "--force", "--device", "d", "--prospect", "p", "--url", &closed],
    ] {
        let printed = run(command);
        assert_eq!(printed.status, Some(69), "{printed:?}");
        assert!(printed.err.contains("no session-lock server at"), "{printed:?}");
    }
    let service = world.serve(&["--api-token", "s3cret"]);
    let url = format!("http://{}", service.address);
    let printed = run(&["list", "--url", &url]);
    assert_eq!(printed.status, Some(2), "{printed:?}");
    assert!(printed.err.contains("SESSION_LOCK_API_TOKEN"), "{printed:?}");
    assert_eq!(run(&["list", "--url", &url, "--api-token", "s3cret"]).status, Some(0));
}

fn rows_of_crashed_holders_are_swept_and_no_others(world: &World) {
    let (schema, service) = own_service(world);
    let [forgotten, recent, live, foreign] = [(); 4].map(|()| Session::new());
    let mut conn = schema.connect();
    // The sweep's first page.
    fill(&mut conn, 1_000);
    for session in [&forgotten, &recent, &live] {
        service.hold(session);
    }
    crate::world::age(&mut conn, &forgotten, 30 + 6 * 60);
    crate::world::age(&mut conn, &recent, 30 + 4 * 60);
    conn.query_drop(format!(
        "INSERT INTO {TABLE} (id_device, id_prospect, timestamp) VALUES ('{}', '{}', '2020-01-01 00:00:00')",
        foreign.device, foreign.prospect
    ))
    .unwrap();
    drop(service);
    // A server sweeps when it starts, and every minute.
    let began = Instant::now();
    // What a stall of the machine keeps from it, it leaves for the next.
    let service = eventually(
        || "a sweep",
        || {
            let service = Service::start(&schema.url(), &[]);
            let until = Instant::now() + Duration::from_secs(5);
            let swept = |line: &String| line.contains("swept 1 rows of crashed holders");
            while Instant::now() < until {
                if service.log().iter().any(swept) {
                    return Some(service);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            None
        },
    );
    let left: HashSet<String> = conn
        .query(format!("SELECT id_prospect FROM {TABLE} WHERE id_device <> 'bot'"))
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(
        left,
        HashSet::from([recent.prospect.clone(), live.prospect, foreign.prospect]),
        "{:?}",
        began.elapsed()
    );
    eventually(|| "a takeover keeps its meaning", || Some(service.acquire(&recent, json!({}))))
        .assert_granted("takeover");
}
