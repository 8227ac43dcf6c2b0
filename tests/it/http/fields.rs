//! Bodies and their fields: each gets a clear refusal or the right answer, and nothing wrong is
//! stored.

use mysql::prelude::Queryable;
use serde_json::{Value, json};

use crate::world::{Session, TABLE, World, tests};

tests![
    null_counts_as_absent,
    a_whole_number_may_have_a_fraction_of_zeros,
    an_integer_is_an_id,
    every_wrong_field_is_refused_by_name,
    what_is_no_json_object_is_refused,
    a_body_of_1024_bytes_is_the_longest,
    ids_of_every_printable_character_work,
    every_wrong_field_of_a_message_is_refused_by_name,
];

const TOKEN: &str = "48210000000000000007";

fn every_wrong_field_is_refused_by_name(world: &World) {
    let session = Session::new();
    let mut cases = wrong_fields();
    for (path, fields) in [("/v1/acquire", json!({})), ("/v1/release", owned(json!({})))] {
        for id in ["id_prospect", "id_device"] {
            for wrong in wrong_ids() {
                let mut fields = fields.clone();
                fields[id] = wrong;
                cases.push((id, path, fields));
            }
        }
    }
    for (field, path, wrong) in cases {
        let mut fields = session.with(json!({}));
        fields.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let message = world.service.post(path, &fields).assert_refused(400, "invalid_request");
        assert!(message.contains(field), "{fields} -> {message}");
    }
    for field in ["id_prospect", "id_device"] {
        let mut fields = session.with(json!({}));
        fields.as_object_mut().unwrap().remove(field);
        let message =
            world.service.post("/v1/acquire", &fields).assert_refused(400, "invalid_request");
        assert!(message.contains(field) && message.contains("missing"), "{message}");
    }
    assert_eq!(world.stored(&session), None);
}

fn owned(mut fields: Value) -> Value {
    fields["owner_token"] = json!(TOKEN);
    fields
}

/// The field that the refusal must name, the path, and the fields.
fn wrong_fields() -> Vec<(&'static str, &'static str, Value)> {
    let acquire = [
        ("ttl_ms", json!({"ttl_ms": 999})),
        ("ttl_ms", json!({"ttl_ms": 3_600_001})),
        ("ttl_ms", json!({"ttl_ms": 900_001})),
        ("ttl_ms", json!({"ttl_ms": -1})),
        ("ttl_ms", json!({"ttl_ms": 1e30})),
        ("ttl_ms", json!({"ttl_ms": 30000.5})),
        ("ttl_ms", json!({"ttl_ms": "30000"})),
        ("ttl_ms", json!({"ttl_ms": [30000]})),
        ("owner_token", json!({"owner_token": "4821000000000000000"})),
        ("owner_token", json!({"owner_token": "482100000000000000070"})),
        ("owner_token", json!({"owner_token": "4821000000000000000x"})),
        ("owner_token", json!({"owner_token": "+8210000000000000007"})),
        ("owner_token", json!({"owner_token": "٤8210000000000000007"})),
        ("owner_token", json!({"owner_token": 48_210_000_000_000_000_u64})),
        ("tll_ms", json!({"tll_ms": 30_000})),
        ("wait_ms", json!({"wait_ms": 25_001})),
        ("wait_ms", json!({"wait_ms": "1s"})),
        ("force", json!({"force": true})),
    ];
    let release = [
        ("owner_token", json!({})),
        ("force", owned(json!({"force": false}))),
        ("force", json!({"force": 1})),
        ("owner_token", owned(json!({"force": true}))),
        ("fencing_token", json!({"force": true, "fencing_token": "1"})),
        ("fencing_token", owned(json!({"fencing_token": 1}))),
        ("ttl_ms", owned(json!({"ttl_ms": 30_000}))),
    ];
    let acquire = acquire.into_iter().map(|(field, fields)| (field, "/v1/acquire", fields));
    let release = release.into_iter().map(|(field, fields)| (field, "/v1/release", fields));
    acquire.chain(release).collect()
}

fn wrong_ids() -> Vec<Value> {
    vec![
        json!(""),
        json!(" "),
        json!(" a"),
        json!("a "),
        json!("a\n"),
        json!("a\u{0}b"),
        json!("é\u{a0}"),
        json!("a\u{9f}b"),
        json!("\u{7f}"),
        json!("é".repeat(256)),
        json!(1.5),
        json!(1e20),
        json!(true),
        json!(null),
        json!(["a"]),
    ]
}

fn null_counts_as_absent(world: &World) {
    let session = Session::new();
    let nulls = json!({
        "ttl_ms": null, "wait_ms": null, "owner_token": null, "message_id": null,
    });
    world.service.acquire(&session, nulls).assert_granted("new");
    let forced = json!({"force": true, "fencing_token": null, "owner_token": null});
    assert_eq!(world.service.post("/v1/release", session.with(forced)).status, 200);
    let message = world.service.post("/v1/acquire", json!({"id_device": "b", "id_prospect": null}));
    let message = message.assert_refused(400, "invalid_request");
    assert!(message.contains("id_prospect is missing"), "{message}");
}

/// Languages without integers write numbers in this form.
fn a_whole_number_may_have_a_fraction_of_zeros(world: &World) {
    let session = Session::new();
    let body =
        |ttl: &str| session.with(json!({"ttl_ms": "TTL"})).to_string().replace("\"TTL\"", ttl);
    for wrong in ["30000.5", "30000.01", "-1.0", "3e4.0", "true"] {
        world.service.post("/v1/acquire", body(wrong)).assert_refused(400, "invalid_request");
    }
    let granted = world.service.post("/v1/acquire", body("30000.000"));
    granted.assert_granted("new");
}

fn an_integer_is_an_id(world: &World) {
    let (device, prospect) = (Session::new().device, fastrand::u64(1 << 40..));
    let body = |id: String| {
        format!("{{\"id_device\":\"{device}\",\"id_prospect\":{id},\"message_id\":42}}")
    };
    world.service.post("/v1/acquire", body(prospect.to_string())).assert_granted("new");
    world.service.post("/v1/acquire", body(format!("\"{prospect}\""))).assert_held();
    // Ids of Telegram's groups.
    world.service.post("/v1/acquire", body(format!("-{prospect}"))).assert_granted("new");
    let read = world.service.get(&format!("/v1/locks/{device}/-{prospect}"));
    assert_eq!(read.json["id_prospect"], json!(format!("-{prospect}")));
}

fn what_is_no_json_object_is_refused(world: &World) {
    for body in [
        "",
        "{",
        "[]",
        "1",
        "\"x\"",
        "null",
        "{}x",
        "{'id_device':1}",
        "\u{feff}{}",
        "id_device=bot1",
    ] {
        world.service.post("/v1/acquire", body).assert_refused(400, "invalid_request");
    }
    let deep = "[".repeat(1_000);
    world.service.post("/v1/acquire", deep).assert_refused(400, "invalid_request");
    let twice = r#"{"id_device":"a","id_device":"b","id_prospect":"c"}"#;
    let message = world.service.post("/v1/acquire", twice).assert_refused(400, "invalid_request");
    assert!(message.contains("id_device"), "{message}");
}

fn a_body_of_1024_bytes_is_the_longest(world: &World) {
    let session = Session::new();
    let body = session.with(json!({})).to_string();
    let padded = |length: usize| format!("{body}{}", " ".repeat(length - body.len()));
    world.service.post("/v1/acquire", padded(1_025)).assert_refused(413, "too_large");
    assert_eq!(world.stored(&session), None);
    world.service.post("/v1/acquire", padded(1_024)).assert_granted("new");
}

fn ids_of_every_printable_character_work(world: &World) {
    let all: String = (b'!'..=b'~').map(char::from).collect();
    let odd = [
        "'", "\"", "\\", "\\'", "'; --", "/*", "%s", ":key", "{table}", "?", "a b", "0x41", "NULL",
    ];
    for prospect in odd.into_iter().map(str::to_owned).chain([all, "x".repeat(255)]) {
        let session = Session { prospect, ..Session::new() };
        let owner_token = world.service.hold(&session);
        world.service.acquire(&session, json!({})).assert_held();
        let stored: Vec<String> = {
            let sql = format!("SELECT id_prospect FROM {TABLE} WHERE id_device = ?");
            world.database.connect().exec(sql, (&session.device,)).unwrap()
        };
        assert_eq!(stored, std::slice::from_ref(&session.prospect));
        assert_eq!(world.service.get(&session.path()).json["id_prospect"], json!(session.prospect));
        assert_eq!(world.service.release(&session, &owner_token).status, 200);
    }
}

fn every_wrong_field_of_a_message_is_refused_by_name(world: &World) {
    let (acquire, commit, release) = ("/v1/acquire", "/v1/commit", "/v1/release");
    let mut cases = vec![
        ("result", acquire, json!({"message_id": "m", "result": {}})),
        ("message_id", commit, owned(json!({}))),
        ("owner_token", commit, json!({"message_id": "m"})),
        ("ttl_ms", commit, owned(json!({"message_id": "m", "ttl_ms": 30_000}))),
        ("result", commit, owned(json!({"message_id": "m", "result": "x".repeat(511)}))),
        ("result", release, owned(json!({"result": "r"}))),
        ("message_id", release, json!({"force": true, "message_id": "m"})),
        ("message_id", "/v1/renew", owned(json!({"message_id": "m"}))),
    ];
    for wrong in
        [json!(""), json!("x".repeat(256)), json!("é"), json!("a\n"), json!(7.5), json!([7])]
    {
        for path in [acquire, commit, release] {
            let mut fields = owned(json!({"message_id": wrong}));
            if path == acquire {
                fields["ttl_ms"] = json!(30_000);
            }
            cases.push(("message_id", path, fields));
        }
    }
    for (field, path, fields) in cases {
        let session = Session::new();
        let reply = world.service.post(path, session.with(fields.clone()));
        let message = reply.assert_refused(400, "invalid_request");
        assert!(message.contains(field), "{path} {fields}: {message}");
        assert_eq!(world.stored(&session), None);
    }
}
