//! Histories written by hand, which the judge must accept or reject. A line has the times of the
//! call and the answer in milliseconds, the operation, the outcome, and the other fields of a line
//! of a file (`lines`).

use serde_json::{Value, json};

use crate::judge::judge;
use crate::lines::Line;

const RIGHT: [(&str, &str); 17] = [
    (
        "one after the other",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 acquire held owner=2
         5 6 renew renewed owner=1 remaining_ms=5000
         2000 2001 release released owner=1
         2002 2003 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         2004 2005 release lost owner=1",
    ),
    (
        "granted during the release, asked for before",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         5 20 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         10 30 release released owner=1",
    ),
    (
        "a takeover after the expiry",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=100
         101 102 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         103 104 renew lost owner=1 ttl_ms=1000",
    ),
    (
        "held up to a second after the ttl, because the expiry is rounded up",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=100
         1098 1099 acquire held owner=2",
    ),
    (
        "granted again to the same owner",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 acquire granted owner=1 fencing_token=1 remaining_ms=990",
    ),
    (
        "an acquire without an answer took effect, and is repeated",
        "0 2 acquire unknown owner=1 ttl_ms=1000
         3 4 acquire held owner=2
         5 6 acquire granted owner=1 fencing_token=1 remaining_ms=990",
    ),
    (
        "an acquire without an answer never took effect",
        "0 2 acquire unknown owner=1 ttl_ms=1000
         3 4 acquire granted owner=2 fencing_token=1 remaining_ms=1000",
    ),
    (
        "an acquire without an answer takes effect late, and expires",
        "0 2 acquire unknown owner=1 ttl_ms=1000
         3 4 acquire granted owner=2 fencing_token=1 remaining_ms=1000
         5 6 release released owner=2
         7 8 acquire held owner=3
         1010 1011 acquire granted owner=3 fencing_token=2 remaining_ms=1000",
    ),
    (
        "a release without an answer took effect",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 release unknown owner=1
         5 6 acquire held owner=2
         7 8 acquire granted owner=2 fencing_token=2 remaining_ms=1000",
    ),
    (
        "a release without an answer never took effect",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 release unknown owner=1
         500 501 renew renewed owner=1 remaining_ms=1000",
    ),
    (
        "a commit without an answer took effect",
        "0 2 acquire granted owner=1 message=7 fencing_token=1 remaining_ms=100
         3 4 commit unknown owner=1 message=7
         200 201 acquire duplicate message=7
         202 203 commit committed owner=1 message=7",
    ),
    (
        "a commit without an answer never took effect",
        "0 2 acquire granted owner=1 message=7 fencing_token=1 remaining_ms=100
         3 4 commit unknown owner=1 message=7
         200 201 acquire granted owner=2 message=7 fencing_token=2 remaining_ms=1000
         202 203 commit committed owner=2 message=7
         204 205 commit duplicate owner=1 message=7",
    ),
    (
        "a renew without an answer took effect",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=100
         3 4 renew unknown owner=1 ttl_ms=5000
         3000 3001 acquire held owner=2",
    ),
    (
        "a release that records its message",
        "0 2 acquire granted owner=1 message=7 fencing_token=1 remaining_ms=1000
         3 4 release released owner=1 message=7
         5 6 acquire duplicate message=7 owner=2",
    ),
    (
        "a message is committed again after the lease",
        "0 2 acquire granted owner=1 message=7 fencing_token=1 remaining_ms=1000
         3 4 commit committed owner=1 message=7
         5 6 release released owner=1
         7 8 commit committed owner=1 message=7",
    ),
    (
        "a release whose first packet was lost, after the expiry",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=100
         2000 2001 release released owner=1",
    ),
    ("nothing is certain", "0 2 acquire unknown owner=1 ttl_ms=1000"),
];

const WRONG: [(&str, &str); 20] = [
    (
        "granted twice",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         5 6 acquire granted owner=2 fencing_token=2 remaining_ms=1000",
    ),
    (
        "granted before a renewed lease expired",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=10
         5 6 renew renewed owner=1 remaining_ms=1000
         50 60 acquire granted owner=2 fencing_token=2 remaining_ms=1000",
    ),
    (
        "a fencing token that falls",
        "0 2 acquire granted owner=1 fencing_token=2 remaining_ms=1000
         3 4 release released owner=1
         5 6 acquire granted owner=2 fencing_token=1 remaining_ms=1000",
    ),
    (
        "the fencing token of the lease before",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 release released owner=1
         5 6 acquire granted owner=2 fencing_token=1 remaining_ms=1000",
    ),
    (
        "a new lease for an owner that has one",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 acquire granted owner=1 fencing_token=2 remaining_ms=1000",
    ),
    (
        "a message committed by two owners",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=10
         3 4 commit committed owner=1 message=7
         20 21 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         22 23 commit committed owner=2 message=7",
    ),
    (
        "a commit of a stale owner",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=10
         20 21 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         22 23 commit committed owner=1 message=7",
    ),
    (
        "a release lost while its lease holds",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 release lost owner=1",
    ),
    (
        "a commit lost while its lease holds",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 commit lost owner=1 message=7",
    ),
    (
        "a renew lost while its lease holds, after another one",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=10
         3 4 renew renewed owner=1 remaining_ms=1000
         20 21 renew lost owner=1 ttl_ms=1000",
    ),
    (
        "a lease for an answered message",
        "0 2 acquire granted owner=1 message=7 fencing_token=1 remaining_ms=1000
         3 4 commit committed owner=1 message=7
         5 6 release released owner=1
         7 8 acquire granted owner=2 message=7 fencing_token=2 remaining_ms=1000",
    ),
    (
        "a lease for a message that was answered on release",
        "0 2 acquire granted owner=1 message=7 fencing_token=1 remaining_ms=1000
         5 6 release released owner=1 message=7
         7 8 acquire granted owner=2 message=7 fencing_token=2 remaining_ms=1000",
    ),
    ("answered already, by nobody", "0 2 acquire duplicate owner=1 message=7"),
    (
        "committed by somebody else, before anybody did",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 commit duplicate owner=1 message=7",
    ),
    (
        "a release by a stale owner",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=10
         20 21 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         22 23 release released owner=1",
    ),
    (
        "a release by a stale owner is lost and ends the lease of another",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=10
         20 21 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         22 23 release lost owner=1
         24 25 acquire granted owner=3 fencing_token=3 remaining_ms=1000",
    ),
    (
        "held by nobody",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 release released owner=1
         5 6 acquire held owner=2",
    ),
    (
        "held long after the expiry",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=100
         1200 1201 acquire held owner=2",
    ),
    (
        "a release without an answer takes effect, and does not",
        "0 2 acquire granted owner=1 fencing_token=1 remaining_ms=1000
         3 4 release unknown owner=1
         5 6 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         7 8 renew renewed owner=1 remaining_ms=1000",
    ),
    (
        "an acquire without an answer takes effect twice",
        "0 2 acquire unknown owner=1 ttl_ms=1000
         3 4 acquire held owner=2
         1200 1201 acquire granted owner=2 fencing_token=2 remaining_ms=1000
         1202 1203 release released owner=2
         1204 1205 acquire held owner=2",
    ),
];

/// After a message was committed, another may have been, and the lease was renewed for ten seconds:
/// the first and the last piece of a long history.
const LONG: &str = "0 2 acquire granted owner=1 message=7 fencing_token=5 remaining_ms=1000
    3 4 commit committed owner=1 message=7
    5 6 commit unknown owner=1 message=8";

const RIGHT_AFTER_LONG: [(&str, &str); 2] = [
    (
        "the next lease, for another message",
        "20000 20001 release released owner=1
         20002 20003 acquire granted owner=2 message=8 fencing_token=6 remaining_ms=1000",
    ),
    (
        "a commit without an answer took effect long before",
        "20000 20001 acquire duplicate message=8",
    ),
];

const WRONG_AFTER_LONG: [(&str, &str); 4] = [
    (
        "a lease for a message that was answered long before",
        "20000 20001 release released owner=1
         20002 20003 acquire granted owner=2 message=7 fencing_token=6 remaining_ms=1000",
    ),
    (
        "a fencing token below that of long before",
        "20000 20001 release released owner=1
         20002 20003 acquire granted owner=2 fencing_token=4 remaining_ms=1000",
    ),
    (
        "a lease beside one that was granted long before",
        "20002 20003 acquire granted owner=2 fencing_token=6 remaining_ms=1000",
    ),
    ("answered already, by nobody", "20000 20001 acquire duplicate message=9"),
];

/// The judge must accept each right history, and reject each wrong one.
pub fn check_the_judge() {
    for (name, text) in RIGHT {
        let verdict = judge(&parse(text));
        assert!(verdict.wrong.is_empty(), "{name}: {:#?}", verdict.wrong);
    }
    for (name, text) in WRONG {
        assert_wrong(name, text);
    }
    let between = |number: u64| {
        let at_ms = number * 18;
        let what = if number.is_multiple_of(2) {
            "renew renewed owner=1 remaining_ms=5000"
        } else {
            "acquire held"
        };
        format!("{at_ms} {} {what}", at_ms + 1)
    };
    let between = (100..1_100).map(between).collect::<Vec<_>>().join("\n");
    for (name, last) in RIGHT_AFTER_LONG {
        let verdict = judge(&parse(&format!("{LONG}\n{between}\n{last}")));
        assert!(verdict.wrong.is_empty(), "{name}: {:#?}", verdict.wrong);
        assert!(verdict.pieces > 1, "{}", verdict.figures());
    }
    for (name, last) in WRONG_AFTER_LONG {
        assert_wrong(name, &format!("{LONG}\n{between}\n{last}"));
    }
}

fn assert_wrong(name: &str, text: &str) {
    let wrong = judge(&parse(text)).wrong;
    assert!(wrong.len() == 1 && wrong[0].contains("no order"), "{name}: {wrong:#?}");
    // The error is in the last line.
    let last = parse(text.lines().last().unwrap());
    assert!(wrong[0].ends_with(&format!("{:?}", last[0])), "{name}: {wrong:#?}");
}

fn parse(text: &str) -> Vec<Line> {
    text.lines().map(|line| Line::parse(&to_json(line).to_string())).collect()
}

fn to_json(line: &str) -> Value {
    let words: Vec<_> = line.split_whitespace().collect();
    let [called_ms, answered_ms, operation, outcome, fields @ ..] = &words[..] else {
        panic!("{line}");
    };
    let micros = |ms: &str| ms.parse::<u64>().unwrap() * 1_000;
    let mut json = json!({
        "session": 1,
        "client": 1,
        "called_us": micros(called_ms),
        "answered_us": micros(answered_ms),
        "operation": operation,
        "outcome": outcome,
    });
    for field in fields {
        let (name, value) = field.split_once('=').unwrap();
        json[name] = json!(value.parse::<u64>().unwrap());
    }
    json
}
