//! Properties of any input: the 62 stored characters, and the parser of requests.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use session_lock::testing::{FencingToken, Id, OwnerToken, STORED_CHARS, StoredLease};
use session_lock::testing::{Operation, Service, Store};
use session_lock::testing::{Parsed, Request, Response, Routed, Router, WAIT_MAX_MS};
use session_lock::testing::{TTL_MAX_MS, TTL_MIN_MS, TokenOrigin};

/// A router without a database, which no test here needs.
fn router() -> AssertUnwindSafe<Router> {
    let url = mysql::Opts::from_url("mysql://root@127.0.0.1:1/nowhere").unwrap();
    let store = Store::new(&url, "sessions", None, 1);
    let service = Service::new(store);
    AssertUnwindSafe(Router { service, max_hold_ms: TTL_MAX_MS, api_token: None, origin: None })
}

fn read(router: &Router, method: &str, target: &str, body: &[u8]) -> Routed {
    let request = Request { method, target, authorization: None, origin: None, host: None, body };
    router.route(&request, Instant::now()).1
}

/// Asserts a refusal with a message, in the shape of every error.
fn assert_refused(response: &Response, statuses: &[u16]) {
    assert!(statuses.contains(&response.status), "{response:?}");
    let body: Value = serde_json::from_str(&response.body).unwrap();
    for field in ["code", "message"] {
        let text = body["error"][field].as_str();
        assert!(text.is_some_and(|text| !text.is_empty()), "{response:?}");
    }
}

fn ids() -> impl Strategy<Value = String> {
    "[!-~à-ſ一-鿿]([ -~à-ſ一-鿿]{0,40}[!-~à-ſ一-鿿])?"
}

fn tokens() -> impl Strategy<Value = String> {
    "[0-9]{20}"
}

fn plain(text: &str) -> String {
    json!(text).to_string()
}

fn escaped(text: &str) -> String {
    let letters = text.chars().map(|letter| format!("\\u{:04X}", u32::from(letter)));
    format!("\"{}\"", letters.collect::<String>())
}

/// A body with these fields in any order, in any JSON spelling.
fn spelled(fields: Vec<(&'static str, Value)>) -> impl Strategy<Value = Vec<u8>> {
    let spellings: [fn(&str) -> String; 2] = [plain, escaped];
    let spellings = prop::sample::select(spellings.to_vec());
    (Just(fields).prop_shuffle(), spellings, "[ \t\r\n]{0,3}").prop_map(|(fields, spell, blank)| {
        let field = |(name, value): &(&str, Value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), spell);
            format!("{blank}{}{blank}:{blank}{value}{blank}", spell(name))
        };
        let fields: Vec<_> = fields.iter().map(field).collect();
        format!("{blank}{{{}}}{blank}", fields.join(",")).into_bytes()
    })
}

/// Random JSON, which is rarely a valid request.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,30}".prop_map(Value::from),
        tokens().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 10] = [
    "id_device",
    "id_prospect",
    "owner_token",
    "ttl_ms",
    "wait_ms",
    "message_id",
    "result",
    "force",
    "fencing_token",
    "Force",
];

const PATHS: [&str; 4] = ["/v1/acquire", "/v1/renew", "/v1/commit", "/v1/release"];

proptest! {
    #[test]
    fn a_lease_is_read_from_its_62_characters(
        date in "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\\.000000",
        fencing_token in 0..4_999_999_999_999_999_u64,
        token in tokens(),
    ) {
        let stored = format!("{date}{fencing_token:016}{token}");
        prop_assert_eq!(stored.len(), STORED_CHARS);
        let expected = StoredLease {
            fencing_token: FencingToken(fencing_token),
            owner_token: OwnerToken::new(&token).unwrap(),
        };
        prop_assert_eq!(StoredLease::parse(stored.as_bytes()), Some(expected));
    }

    #[test]
    fn no_bytes_but_those_of_a_lease_are_one(stored in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(StoredLease::parse(&stored), None);
    }

    #[test]
    fn one_wrong_byte_never_changes_the_owner_unseen(
        token in tokens(),
        at in 0..STORED_CHARS,
        byte: u8,
    ) {
        let mut stored = format!("2025-10-14 09:00:00.0000001760432400123456{token}").into_bytes();
        stored[at] = byte;
        if let Some(StoredLease { owner_token, fencing_token }) = StoredLease::parse(&stored) {
            // The parsed values equal the stored ones, digit for digit.
            let said = format!("{:016}{}", fencing_token.0, owner_token.secret());
            prop_assert_eq!(said.as_bytes(), &stored[26..]);
        }
    }

    #[test]
    fn an_acquire_means_its_fields_however_they_are_spelled(
        (device, prospect, token, ttl_ms, wait_ms, body) in
            (ids(), ids(), tokens(), TTL_MIN_MS..=TTL_MAX_MS, 0..=WAIT_MAX_MS).prop_flat_map(
                |(device, prospect, token, ttl_ms, wait_ms)| {
                    let fields = vec![
                        ("id_device", json!(device)),
                        ("id_prospect", json!(prospect)),
                        ("owner_token", json!(token)),
                        ("ttl_ms", json!(ttl_ms)),
                        ("wait_ms", json!(wait_ms)),
                    ];
                    (
                        Just(device), Just(prospect), Just(token), Just(ttl_ms), Just(wait_ms),
                        spelled(fields),
                    )
                },
            ),
    ) {
        let Routed::Parsed(Parsed::Acquire { acquire, wait }) = read(&router(), "POST", "/v1/acquire", &body)
        else {
            panic!("{}", String::from_utf8_lossy(&body));
        };
        prop_assert_eq!(acquire.session.id_device.as_str(), device);
        prop_assert_eq!(acquire.session.id_prospect.as_str(), prospect);
        prop_assert_eq!(acquire.owner_token.secret(), token);
        prop_assert_eq!(acquire.origin, TokenOrigin::Callers);
        prop_assert_eq!(acquire.ttl.as_ms(), ttl_ms);
        prop_assert_eq!(wait, Duration::from_millis(wait_ms));
        prop_assert_eq!(acquire.message_id, None);
    }

    #[test]
    fn a_release_without_its_owners_token_is_none(
        fields in prop::collection::vec((prop::sample::select(&FIELDS[..]), values()), 0..6),
    ) {
        let body: Map<_, _> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let is_forced = body.get("force") == Some(&json!(true));
        let token = body.get("owner_token").and_then(Value::as_str).map(str::to_owned);
        let text = Value::Object(body).to_string();
        match read(&router(), "POST", "/v1/release", text.as_bytes()) {
            Routed::Answered(response) => assert_refused(&response, &[400]),
            Routed::Parsed(Parsed::Other(Operation::Release(release))) => {
                prop_assert!(!is_forced);
                prop_assert_eq!(Some(release.owner_token.secret()), token.as_deref());
            }
            Routed::Parsed(Parsed::Other(Operation::Force(_))) => prop_assert!(is_forced && token.is_none()),
            Routed::Parsed(_) => panic!("{text}"),
        }
    }

    #[test]
    fn a_field_that_nobody_knows_or_that_is_there_twice_is_refused(
        name in "[a-z_]{1,12}",
        at in 0..3_usize,
        path in prop::sample::select(&PATHS[..]),
    ) {
        let mut fields = [
            "\"id_device\":\"a\"",
            "\"id_prospect\":\"b\"",
            "\"owner_token\":\"48210000000000000007\"",
        ].map(str::to_owned).to_vec();
        prop_assume!(!FIELDS.contains(&name.as_str()));
        for more in [format!("\"{name}\":1"), fields[at].clone()] {
            fields.push(more);
            let body = format!("{{{}}}", fields.join(","));
            let Routed::Answered(response) = read(&router(), "POST", path, body.as_bytes()) else {
                panic!("{path} {body}");
            };
            assert_refused(&response, &[400]);
            fields.pop();
        }
    }

    #[test]
    fn any_body_is_answered(
        path in prop::sample::select(&PATHS[..]),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            values().prop_map(|value| value.to_string().into_bytes()),
        ],
    ) {
        if let Routed::Answered(response) = read(&router(), "POST", path, &body) {
            assert_refused(&response, &[400]);
        }
    }

    #[test]
    fn any_target_is_answered(method in "GET|POST|PUT|[A-Z]{1,8}", target in "(/v1/locks?)?[!-~]{0,60}") {
        let Routed::Answered(response) = read(&router(), &method, &target, b"") else {
            panic!("{method} {target}");
        };
        if response.status != 200 {
            assert_refused(&response, &[400, 404, 405, 503]);
        }
    }

    #[test]
    fn an_id_is_kept_as_it_is_or_refused(text in prop_oneof!["(?s).{0,3}", "\\PC{0,300}"]) {
        let is_good = text.trim() == text
            && (1..=255).contains(&text.chars().count())
            && !text.chars().any(char::is_control);
        match Id::new(&text) {
            Ok(id) => prop_assert!(is_good && id.as_str() == text),
            Err(_) => prop_assert!(!is_good),
        }
    }
}
