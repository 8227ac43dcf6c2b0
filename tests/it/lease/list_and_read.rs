//! Reading one lease, and lists of leases.

use std::collections::HashSet;

use mysql::prelude::Queryable;
use serde_json::json;

use crate::world::{Session, TABLE, World, tests};

tests![
    a_read_shows_who_holds_but_never_the_owner_token,
    pages_show_every_lease_that_holds_once,
    a_page_of_one_device_has_only_that,
    wrong_parameters_of_a_list_are_refused,
    a_page_of_many_rows_uses_the_primary_key,
];

fn a_read_shows_who_holds_but_never_the_owner_token(world: &World) {
    let session = Session::new();
    world.service.get(&session.path()).assert(200, &json!({"held": false}));
    let granted = world.service.acquire(&session, json!({}));
    let read = world.service.get(&session.path());
    let (remaining_ms, held_ms) = (read.number("remaining_ms"), read.number("held_ms"));
    assert!((1..=31_000).contains(&remaining_ms) && held_ms < 30_000, "{read:?}");
    read.assert(
        200,
        &json!({
            "held": true, "id_prospect": session.prospect, "id_device": session.device,
            "remaining_ms": remaining_ms, "held_ms": held_ms,
            "fencing_token": granted.number("fencing_token"), "legacy": false, "waiters": 0,
        }),
    );
    assert!(!read.json.to_string().contains(&granted.text("owner_token")));
    // The fencing token shows since when the session has been held.
    world.set_fencing_token(&session, granted.number("fencing_token") - 10_000_000);
    let held_ms = world.service.get(&session.path()).number("held_ms");
    assert!((10_000..40_000).contains(&held_ms), "{held_ms}");
    world.age(&session, 31);
    world.service.get(&session.path()).assert(200, &json!({"held": false}));
}

fn pages_show_every_lease_that_holds_once(world: &World) {
    let (schema, service) = world.own_service(&[]);
    let mut held = HashSet::new();
    let mut tokens = Vec::new();
    for number in 0..25 {
        let session = Session::new();
        tokens.push(service.hold(&session));
        if number % 5 == 0 {
            schema.age(&session, 31);
        } else {
            held.insert(session.prospect);
        }
    }
    let legacy = Session::new();
    schema.store(&legacy, "NOW()");
    schema.store(&Session::new(), "'garbage'");
    held.insert(legacy.prospect.clone());
    let mut listed = HashSet::new();
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
            assert!(listed.insert(prospect), "twice: {lock}");
        }
        let Some(next) = page.json["next"].as_str() else {
            break;
        };
        path = format!("/v1/locks?limit=4&after={next}");
    }
    assert_eq!(listed, held);
    let all = service.get("/v1/locks?limit=27");
    assert!(all.json.get("next").is_none(), "{all:?}");
}

fn a_page_of_one_device_has_only_that(world: &World) {
    let (_schema, service) = world.own_service(&[]);
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
    let (schema, service) = world.own_service(&[]);
    schema.fill(20_000);
    let mut conn = schema.connect();
    let count: Vec<u64> = conn.query(format!("SELECT COUNT(*) FROM {TABLE}")).unwrap();
    assert_eq!(count, [20_000]);
    // By the database's own count, a page of a hundred reads a hundred rows, not 20,000.
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
