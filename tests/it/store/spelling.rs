//! Ids in many languages: the table's collation decides which spellings are one session.

use std::collections::HashSet;

use serde_json::json;
use session_lock::testing::{Id, Opened, Store};

use crate::world::{Engine, MariaDb, Schema, Session, TABLE, World, tests};

tests![
    an_id_may_have_the_letters_of_any_language,
    two_spellings_are_one_session_if_the_table_compares_them_equal,
    an_id_that_the_table_cannot_store_is_refused_by_name,
    waiters_under_all_spellings_stand_in_one_queue,
];

fn session(device: &str) -> Session {
    Session { device: device.to_owned(), ..Session::new() }
}

/// A lock table whose ids have this collation.
fn schema<'w>(world: &'w World, collation: &str) -> Schema<'w> {
    let schema = world.own_table();
    let charset = collation.split('_').next().unwrap();
    for id in ["id_prospect", "id_device"] {
        schema.sql(&format!(
            "ALTER TABLE {TABLE} MODIFY {id} VARCHAR(255) CHARACTER SET {charset} COLLATE {collation} NOT NULL"
        ));
    }
    schema
}

fn an_id_may_have_the_letters_of_any_language(world: &World) {
    for device in ["Atendimento São Paulo", "Toko 📱", "Служба", "客服一", "دعم", "ñandú’s"]
    {
        let session = session(device);
        let token = world.service.hold(&session);
        world.service.acquire(&session, json!({})).assert_held();
        assert_eq!(world.service.get(&session.path()).json["id_device"], json!(device));
        assert_eq!(world.service.renew(&session, &token, 30_000).status, 200);
        world.service.wait_for_line(&format!("id_device={device:?}"));
        assert_eq!(world.service.release(&session, &token).status, 200);
        assert_eq!(world.service.get(&session.path()).json["held"], json!(false));
    }
}

/// A text that MySQL's process list can show. The list fails while any statement with an emoji
/// runs.
fn literal(text: &str) -> String {
    let hex: Vec<_> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("_utf8mb4 x'{}'", hex.concat())
}

/// Characters of many languages, and characters that look alike.
const PIECES: [&str; 60] = [
    "a", "A", "á", "Á", "ä", "å", "aa", "AA", "æ", "ae", "b", "B", "c", "ç", "ch", "CH", "cs",
    "ccs", "d", "dz", "dzs", "đ", "e", "é", "È", "i", "I", "ı", "İ", "ll", "LL", "n", "ñ", "Ñ",
    "o", "ö", "ő", "oe", "œ", "ø", "s", "ss", "ß", "ẞ", "u", "ü", "1", "１", "٤", "4", "-", "‐",
    "ж", "Ж", "漢", "か", "カ", "ﬀ", "😀", "📱",
];

fn collations(engine: Engine) -> Vec<&'static str> {
    let all = [
        "utf8mb4_general_ci",
        "utf8mb4_unicode_ci",
        "utf8mb4_bin",
        "utf8mb4_turkish_ci",
        "utf8mb4_hungarian_ci",
        "utf8mb4_danish_ci",
        "utf8mb4_spanish2_ci",
    ];
    let own = match engine {
        // The collations of MariaDB 10.10 are missing.
        Engine::MariaDb(MariaDb::V10_5) => ["utf8mb4_unicode_520_ci", "utf8mb4_nopad_bin"],
        Engine::MariaDb(_) => ["utf8mb4_uca1400_ai_ci", "utf8mb4_uca1400_as_cs"],
        Engine::MySql => ["utf8mb4_0900_ai_ci", "utf8mb4_0900_as_cs"],
    };
    all.into_iter().chain(own).collect()
}

fn two_spellings_are_one_session_if_the_table_compares_them_equal(world: &World) {
    const PAIRS: usize = 400;
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    for collation in collations(world.engine) {
        let schema = schema(world, collation);
        let url = mysql::Opts::from_url(&schema.url()).unwrap();
        let store = Store::new(&url, TABLE, None, 1);
        let opened = store.open();
        assert!(matches!(opened, Opened::Ready), "{collation}: {opened:?}");
        let mut text = || {
            let count = random.usize(1..=3);
            (0..count).map(|_| PIECES[random.usize(..PIECES.len())]).collect::<String>()
        };
        let all: HashSet<String> = (0..PAIRS).map(|_| text()).collect();
        let all: Vec<_> = all.into_iter().collect();
        let name = |text: &str| {
            let id = Id::new(text).unwrap();
            let session = session_lock::testing::Session { id_device: id.clone(), id_prospect: id };
            store.session_name(&session).unwrap()
        };
        let names: Vec<_> = all.iter().map(|text| name(text)).collect();
        let mut equal = 0;
        for (at, text) in all.iter().enumerate().skip(1) {
            let one = literal(text);
            let alike = all[..at]
                .iter()
                .map(|other| format!("{one} COLLATE {collation} = {}", literal(other)));
            let alike = alike.collect::<Vec<_>>().join(", ");
            let alike: Vec<String> = schema.rows(&format!("SELECT CONCAT({alike})"));
            for (other, is_equal) in alike[0].bytes().map(|digit| digit == b'1').enumerate() {
                equal += usize::from(is_equal);
                assert_eq!(
                    names[at] == names[other],
                    is_equal,
                    "{collation}: {text:?} {:?}, seed {seed}",
                    all[other]
                );
            }
        }
        assert!(
            equal > 0 || collation.ends_with("bin") || collation.ends_with("cs"),
            "{collation}"
        );
    }
}

fn an_id_that_the_table_cannot_store_is_refused_by_name(world: &World) {
    let schema = schema(world, "latin1_swedish_ci");
    let service = world.serve(&["--database-url", &schema.url()]);
    service.hold(&session("São Paulo"));
    for path in ["/v1/acquire", "/v1/renew"] {
        let mut body = session("Toko 📱").with(json!({}));
        if path == "/v1/renew" {
            body["owner_token"] = json!("48210000000000000007");
        }
        let message = service.post(path, body).assert_refused(400, "invalid_request");
        assert!(message.contains("id_device") && message.contains("latin1"), "{message}");
    }
}

fn waiters_under_all_spellings_stand_in_one_queue(world: &World) {
    let schema = schema(world, "utf8mb4_unicode_ci");
    let service = world.serve(&["--database-url", &schema.url()]);
    let prospect = Session::new().prospect;
    let spelled = |device: &str| Session { device: device.to_owned(), prospect: prospect.clone() };
    let token = service.hold(&spelled("São"));
    std::thread::scope(|scope| {
        let waiting: Vec<_> = ["SAO", "são", "sáó", "ＳＡＯ"]
            .into_iter()
            .zip(1..)
            .map(|(device, count)| {
                let (service, session) = (&service, spelled(device));
                let waiting = scope.spawn(move || {
                    let granted = service.acquire(&session, json!({"wait_ms": 20_000}));
                    granted.assert_granted("new");
                    let token = granted.text("owner_token");
                    assert_eq!(service.release(&session, &token).status, 200);
                });
                service.wait_for_waiters(&spelled("sao"), count);
                waiting
            })
            .collect();
        let held = service.acquire(&spelled("sao"), json!({}));
        held.assert_held();
        assert_eq!(held.json["waiters"], json!(4));
        assert_eq!(service.release(&spelled("sÃO"), &token).status, 200);
        for waiting in waiting {
            waiting.join().unwrap();
        }
    });
}
