use super::*;
use crate::doctor::Report;
use crate::doctor::definition::Definition;
use crate::doctor::facts::{Column, UniqueKey};

fn column(name: &str, data_type: &str, width: u64, collation: &str) -> Column {
    Column {
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        width,
        bytes: 4 * width,
        omittable: name == "id",
        nullable: false,
        counts_up: name == "id",
        collation: collation.to_owned(),
        max: 99,
    }
}

fn key(name: &str, columns: &str) -> UniqueKey {
    UniqueKey { name: name.to_owned(), columns: columns.to_owned(), is_prefix: false }
}

fn table(columns: Vec<Column>, unique_keys: Vec<UniqueKey>) -> TableFacts {
    let (kind, engine) = ("BASE TABLE".to_owned(), "InnoDB".to_owned());
    TableFacts { kind, engine, next_id: 10, columns, unique_keys, ..TableFacts::default() }
}

fn lock_table() -> TableFacts {
    let text = |name| column(name, "varchar", 255, "utf8mb4_bin");
    let columns = vec![column("id", "int", 0, ""), text("id_prospect"), text("timestamp")];
    let keys = vec![key("PRIMARY", "id"), key("session", "id_device,id_prospect")];
    let mut table = table(columns, keys);
    table.columns.insert(2, column("id_device", "char", 255, "latin1_swedish_ci"));
    table.definition = Definition::new(DEFINITION);
    table
}

const DEFINITION: &str = "CREATE TABLE `t` (
  `id` int NOT NULL AUTO_INCREMENT,
  `id_prospect` varchar(255) COLLATE utf8mb4_bin NOT NULL,
  `id_device` char(255) CHARACTER SET latin1 NOT NULL,
  `timestamp` varchar(255) COLLATE utf8mb4_bin NOT NULL COMMENT 'c',
  `x` any(1,2) NOT NULL COMMENT 'NOT NULL',
  PRIMARY KEY (`id`),
  UNIQUE KEY `session` (`id_device`(9),`id_prospect`) COMMENT 'k',
  UNIQUE KEY `other` (`id_device`),
) ENGINE=InnoDB";

fn define(table: &mut TableFacts, from: &str, to: &str) {
    assert!(DEFINITION.contains(from), "{from}");
    table.definition = Definition::new(&DEFINITION.replace(from, to));
}

fn rows(count: u64, is_least: bool) -> Rows {
    Rows { count, is_least, prospect: "p".to_owned(), device: "d".to_owned() }
}

fn message_table() -> TableFacts {
    let mut columns: Vec<_> = lock_table().columns.into_iter().skip(1).take(2).collect();
    columns.extend(MESSAGE_COLUMNS.map(|(name, kind, width)| column(name, kind, width as u64, "")));
    columns[5].nullable = true;
    let mut table = table(columns, vec![key("PRIMARY", MESSAGE_KEY)]);
    table.definition = Definition::new("  `committed_us` bigint,\n  KEY `k` (`committed_us`,`x`)");
    table
}

/// Facts of which every finding is good.
fn good() -> Facts<'static> {
    let variables = ["innodb_flush_log_at_trx_commit", "sync_binlog"].map(|name| (name, "1"));
    let rights = Rights { is_readable: true, ..Rights::default() };
    Facts {
        version: "8.0".to_owned(),
        zone: "UTC".to_owned(),
        offset_minutes: 0,
        configured_offset: None,
        is_sysdate_now: false,
        is_proxied: false,
        clock_us: 100_000_000,
        local_clock_us: 100_000_000,
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        table_name: "t",
        table: Some(lock_table()),
        rights: Some(rights),
        highest_id: 0,
        rows_ahead: Some(rows(0, false)),
        rows_refused: Some(rows(0, false)),
        messages: Messages::Usable,
    }
}

fn set(facts: &mut Facts, name: &str, value: &str) {
    facts.variables.retain(|(found, _)| found != name);
    facts.variables.push((name.to_owned(), value.to_owned()));
}

fn change(facts: &mut Facts, change: impl FnOnce(&mut TableFacts)) {
    change(facts.table.as_mut().unwrap());
}

fn deny(facts: &mut Facts) {
    let denied = ["one", "two"].map(str::to_owned).to_vec();
    facts.rights = Some(Rights { denied, grant: "GRANT x".to_owned(), ..Rights::default() });
}

/// The findings as they are printed, with single spaces.
fn printed(findings: &[Finding]) -> Vec<String> {
    let words =
        |finding: &Finding| finding.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    findings.iter().map(words).collect()
}

#[test]
fn good_facts_have_good_findings_in_order() {
    let expected = [
        "ok server reachable, version 8.0",
        "ok time zone UTC",
        "ok clock the database's clock agrees with this machine's",
        "ok binlog off",
        "ok durability every new lease is on disk before it is granted",
        "ok table t, InnoDB",
        "ok columns id_prospect, id_device and timestamp can hold a lease",
        "ok collation id_prospect: utf8mb4_bin, distinguishes letter case",
        "ok collation id_device: latin1_swedish_ci, does not distinguish letter case",
        "ok primary key id",
        "ok unique key session (id_prospect, id_device)",
        "ok id headroom 9 of 99 ids used",
        "ok rights SELECT, INSERT, UPDATE, DELETE",
        "ok rows none is dated ahead",
        "ok messages session_lock_message",
    ];
    assert_eq!(printed(&all(&good())), expected);
    assert!(is_usable(&all(&good())));
}

/// A check, a change to good facts, and the beginning and end of each finding that is not good.
type Case = (Check, fn(&mut Facts), &'static [(&'static str, &'static str)]);

#[rustfmt::skip]
const CASES: &[Case] = &[
    (engines::group, |f| set(f, "group_replication_consistency", "BEFORE_ON_PRIMARY_FAILOVER"), &[]),
    (engines::group, |f| set(f, "group_replication_consistency", "EVENTUAL"), &[("warning group group_replication_consistency is EVENTUAL", ": SET GLOBAL group_replication_consistency = 'BEFORE_ON_PRIMARY_FAILOVER';")]),
    (engines::lock_waits, |f| f.version = "10.5.29-MariaDB-0+deb11u1".to_owned(), &[("warning lock waits MariaDB before 10.6 waits up to 2 s", "end in 503")]),
    (engines::lock_waits, |f| f.version = "10.6.0-MariaDB".to_owned(), &[]),
    (engines::lock_waits, |f| f.version = "8.0.45-Debian".to_owned(), &[]),
    (proxy, |f| f.is_proxied = true, &[("warning proxy CONNECTION_ID() is not the number of the handshake", "(HAProxy in TCP mode)")]),
    (sysdate, |f| f.is_sysdate_now = true, &[("problem clock the server runs with --sysdate-is-now", "restart the server")]),
    (time_zone, |f| f.zone = "GMT".to_owned(), &[("problem time zone the database's own zone is GMT (now +00:00)", "if this affects no other program")]),
    (time_zone, |f| (f.configured_offset, f.offset_minutes) = (Some("+02:00"), -90), &[("warning time zone +02:00 is configured, but the database's own zone UTC is at -01:30 now", "their leases have expired")]),
    (time_zone, |f| (f.configured_offset, f.offset_minutes) = (Some("-01:30"), -90), &[]),
    (clock, |f| f.clock_us += 5_999_999, &[]),
    (clock, |f| f.clock_us -= 6_000_000, &[("warning clock the database's clock and this machine's are 6 s apart", "check NTP on both")]),
    (binlog, |f| set(f, "log_bin", "ON"), &[]),
    (binlog, |f| { set(f, "log_bin", "ON"); set(f, "binlog_format", "STATEMENT"); }, &[("problem binlog binlog_format is STATEMENT", ": SET GLOBAL binlog_format = 'ROW';")]),
    (durability, |f| f.variables.clear(), &[("warning durability innodb_flush_log_at_trx_commit is not 1", "forget leases that were granted; set it in my.cnf too: SET GLOBAL innodb_flush_log_at_trx_commit = 1;")]),
    (durability, |f| { set(f, "log_bin", "ON"); set(f, "sync_binlog", "0"); }, &[("warning durability sync_binlog is not 1", "from replicas; set it in my.cnf too: SET GLOBAL sync_binlog = 1;")]),
    (packets, |f| set(f, "max_allowed_packet", "1048576"), &[]),
    (packets, |f| set(f, "max_allowed_packet", "1048575"), &[("warning packets max_allowed_packet is 1048575 bytes, so many requests", "; set it in my.cnf too: SET GLOBAL max_allowed_packet = 16777216;")]),
    (packets, |f| set(f, "max_allowed_packet", "262143"), &[("problem packets max_allowed_packet is 262143 bytes, so the service cannot start", ": SET GLOBAL max_allowed_packet = 16777216;")]),
    (kind, |f| f.table = None, &[("problem table there is no table t,", "`session-lock migrate`")]),
    (kind, |f| change(f, |t| t.engine = "MyISAM".to_owned()), &[("problem table t is MyISAM", ": ALTER TABLE `t` ENGINE = InnoDB, ROW_FORMAT = DYNAMIC;")]),
    (kind, |f| change(f, |t| (t.engine, t.options) = ("MyISAM".to_owned(), "key_block_size=1".to_owned())), &[("problem table t is MyISAM", "DYNAMIC, KEY_BLOCK_SIZE = 0;")]),
    (kind, |f| change(f, |t| t.kind = "VIEW".to_owned()), &[("problem table t is a view, which has no keys", "SESSION_LOCK_TABLE")]),
    (kind, |f| change(f, |t| t.engine.clear()), &[("problem table the server cannot open t", "CHECK TABLE t says why")]),
    (kind, |f| change(f, |t| t.options = "partitioned".to_owned()), &[("problem table t is partitioned", ": ALTER TABLE `t` REMOVE PARTITIONING;")]),
    (kind, |f| change(f, |t| t.kind = "SYSTEM VERSIONED".to_owned()), &[("warning table t keeps all versions", ": SET SESSION system_versioning_alter_history = KEEP; ALTER TABLE `t` DROP SYSTEM VERSIONING;")]),
    (constraints, |f| change(f, |t| define(t, ") ENGINE", "CONSTRAINT `c` CHECK (`timestamp` > 1),\n CONSTRAINT `f` FOREIGN KEY (`id_device`) REFERENCES `p` (`x`)\n) ENGINE")), &[("warning constraints `c` checks every lease against (`timestamp` > 1)", ": ALTER TABLE `t` DROP CONSTRAINT `c`;"), ("warning constraints the foreign key `f` refuses each session whose id_device is not in `p`", ": ALTER TABLE `t` DROP FOREIGN KEY `f`;")]),
    (constraints, |f| change(f, |t| define(t, ") ENGINE", "CONSTRAINT `c` CHECK (`id` > 1),\n CONSTRAINT `f` FOREIGN KEY (`x`) REFERENCES `p` (`timestamp`)\n) ENGINE")), &[]),
    (constraints, |f| change(f, |t| define(t, "COMMENT 'c'", "COMMENT 'c' CHECK (1)")), &[("warning constraints the column timestamp checks every lease", ": ALTER TABLE `t` MODIFY `timestamp` varchar(255) COLLATE utf8mb4_bin NOT NULL COMMENT 'c';")]),
    (columns, |f| change(f, |t| drop(t.columns.remove(1))), &[("problem columns t has no column id_prospect (it has id, id_device, timestamp)", "SESSION_LOCK_TABLE")]),
    (columns, |f| change(f, |t| t.columns.clear()), &[("problem columns t: this user may read no column of it", "DELETE on it")]),
    (columns, |f| change(f, |t| t.columns[3] = column("Timestamp", "datetime", 0, "")), &[("problem columns t.Timestamp is datetime(0), but a lease is a text of 62 characters of one byte, and never NULL", ": ALTER TABLE `t` MODIFY `Timestamp` VARCHAR(255) COLLATE utf8mb4_bin NOT NULL COMMENT 'c';")]),
    (columns, |f| change(f, |t| (t.columns[1].width, t.columns[2].nullable) = (254, true)), &[("problem columns t.id_prospect is varchar(254) utf8mb4_bin, but ids", "NOT NULL;"), ("problem columns t.id_device is char(255) latin1_swedish_ci NULL, but ids", ": DELETE FROM `t` WHERE `id_device` IS NULL; ALTER TABLE `t` MODIFY `id_device` VARCHAR(255) CHARACTER SET latin1 NOT NULL;")]),
    (columns, |f| change(f, |t| t.columns[3].collation = "utf16_bin".to_owned()), &[("problem columns t.timestamp is varchar(255) utf16_bin, but", "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'c';")]),
    (columns, |f| change(f, |t| t.columns[1].collation = "utf16_bin".to_owned()), &[]),
    (columns, |f| change(f, |t| (t.columns[1].data_type, t.row_format) = ("text".to_owned(), "Compact".to_owned())), &[("problem columns t.id_prospect is text(255) utf8mb4_bin, but ids", "NOT NULL, ROW_FORMAT = DYNAMIC;")]),
    (columns, |f| change(f, |t| (t.columns[1].width, t.columns[1].bytes) = (3_000, 12_000)), &[]),
    (columns, |f| change(f, |t| (t.columns[1].width, t.columns[1].bytes, t.unique_keys[1].is_prefix) = (3_000, 12_000, true)), &[("problem columns t.id_prospect is varchar(3000) utf8mb4_bin, but ids", ": DELETE FROM `t` WHERE CHAR_LENGTH(`id_prospect`) > 255; ALTER TABLE `t` MODIFY `id_prospect` VARCHAR(255) COLLATE utf8mb4_bin NOT NULL;")]),
    (columns, |f| change(f, |t| define(t, "char(255) CHARACTER SET latin1", "char(255) GENERATED ALWAYS AS (1)")), &[("problem columns t.id_device is a generated column", "SESSION_LOCK_TABLE")]),
    (columns, |f| change(f, |t| (t.columns[3].width, t.definition) = (61, Definition::default())), &[("problem columns t.timestamp is varchar(61) utf8mb4_bin, but", "never NULL")]),
    (other_columns, |f| change(f, |t| t.columns.push(column("x", "enum", 0, ""))), &[("problem columns t.x has no default, so no lease can be written", ": ALTER TABLE `t` MODIFY `x` any(1,2) NULL COMMENT 'NOT NULL';")]),
    (other_columns, |f| change(f, |t| { define(t, ") ENGINE", "SPATIAL KEY `s` (`x`)\n) ENGINE"); t.columns.push(column("x", "point", 0, "")); }), &[("problem columns t.x has no default", "so no lease can be written: give it one, or drop it")]),
    (other_columns, |f| change(f, |t| t.columns.push(column("x", "char", 0, ""))), &[("problem columns t.x has no default", ": ALTER TABLE `t` ALTER `x` SET DEFAULT '';")]),
    (other_columns, |f| change(f, |t| t.columns.push(column("x", "double", 0, ""))), &[("problem columns t.x has no default", ": ALTER TABLE `t` ALTER `x` SET DEFAULT 0;")]),
    (other_columns, |f| change(f, |t| t.columns.push(column("x", "int", 0, ""))), &[("problem columns t.x has no default", ": ALTER TABLE `t` ALTER `x` SET DEFAULT 0;")]),
    (other_columns, |f| change(f, |t| { define(t, "PRIMARY", "CONSTRAINT `c` CHECK (`x` > 1),\n PRIMARY"); t.columns.push(column("x", "int", 0, "")); }), &[("problem columns t.x has no default", ": ALTER TABLE `t` MODIFY `x` any(1,2) NULL COMMENT 'NOT NULL';")]),
    (unique_keys, |f| change(f, |t| t.unique_keys[1].is_prefix = true), &[("problem unique key t has a unique key, session, that compares only", ": ALTER TABLE `t` DROP INDEX `session`, ADD UNIQUE KEY `session` (`id_device`,`id_prospect`) COMMENT 'k';")]),
    (unique_keys, |f| change(f, |t| (t.unique_keys[1].is_prefix, t.row_format) = (true, "Redundant".to_owned())), &[("problem unique key t has a unique key, session, that compares only", "COMMENT 'k', ROW_FORMAT = DYNAMIC;")]),
    (unique_keys, |f| change(f, |t| drop(t.unique_keys.pop())), &[("problem unique key t has no unique key on", ": DELETE older FROM `t` AS older JOIN (SELECT id_prospect, id_device, MAX(`id`) AS newest FROM `t` GROUP BY id_prospect, id_device HAVING COUNT(*) > 1) AS doubled ON older.id_prospect = doubled.id_prospect AND older.id_device = doubled.id_device AND older.`id` < doubled.newest; ALTER TABLE `t` ADD UNIQUE KEY (id_prospect, id_device);")]),
    (unique_keys, |f| change(f, |t| define(t, "COMMENT 'k'", "COMMENT 'k' /*!80000 INVISIBLE */")), &[("problem unique key the key session is i", ": ALTER TABLE `t` ALTER INDEX `session` VISIBLE;")]),
    (unique_keys, |f| change(f, |t| define(t, "COMMENT 'k'", "COMMENT ' INVISIBLE' IGNORED")), &[("problem unique key the key session is i", ": ALTER TABLE `t` ALTER INDEX `session` NOT IGNORED;")]),
    (unique_keys, |f| change(f, |t| t.unique_keys.extend([key("second", "id_device,id_prospect,x"), key("third", "id,x")])), &[]),
    (unique_keys, |f| change(f, |t| t.unique_keys.push(key("other", "id_device"))), &[("problem unique key t has another unique key, other (id_device)", ": ALTER TABLE `t` DROP INDEX `other`, ADD KEY `other` (`id_device`);")]),
    (unique_keys, |f| change(f, |t| t.unique_keys.push(UniqueKey { is_prefix: true, ..key("session", "id_device,id_prospect") })), &[("problem unique key t has another unique key, session", ": ALTER TABLE `t` DROP INDEX `session`, ADD KEY `session` (`id_device`(9),`id_prospect`) COMMENT 'k';")]),
    (triggers, |f| change(f, |t| t.triggers.push("x`".to_owned())), &[("warning triggers x` runs on every lease", ": DROP TRIGGER `x```;")]),
    (references, |f| change(f, |t| t.references.push(("c`".to_owned(), "k".to_owned()))), &[("warning references the foreign key k of c` refers to t", ": ALTER TABLE `c``` DROP FOREIGN KEY `k`;")]),
    (primary, |f| change(f, |t| { t.columns[0].counts_up = false; define(t, "NULL AUTO_INCREMENT", "NULL"); }), &[("problem primary key t has no AUTO_INCREMENT primary key", ": ALTER TABLE `t` MODIFY `id` int NOT NULL AUTO_INCREMENT;")]),
    (primary, |f| change(f, |t| { t.unique_keys[0].columns = "x".to_owned(); define(t, "(`id`)", "(`x`),\n  KEY `n` (`id`)"); }), &[("problem primary key t has no AUTO_INCREMENT primary key", ": ALTER TABLE `t` DROP PRIMARY KEY, ADD PRIMARY KEY (`id`), ADD KEY (`x`);")]),
    (primary, |f| change(f, |t| { t.unique_keys[0].columns = "id,x".to_owned(); define(t, "(`id`)", "(`id`,`x`)"); }), &[("problem primary key t has no AUTO_INCREMENT primary key", ": ALTER TABLE `t` DROP PRIMARY KEY, ADD PRIMARY KEY (`id`);")]),
    (primary, |f| change(f, |t| t.columns[0].data_type = "double".to_owned()), &[("problem primary key t has no AUTO_INCREMENT primary key of one integer column", "SESSION_LOCK_TABLE")]),
    (primary, |f| change(f, |t| drop(t.unique_keys.remove(0))), &[("problem primary key t has no AUTO_INCREMENT primary key", ": ALTER TABLE `t` ADD PRIMARY KEY (`id`);")]),
    (primary, |f| change(f, |t| { t.columns.remove(0); t.unique_keys[0].columns = "timestamp".to_owned(); define(t, "(`id`)", "(`timestamp`)"); }), &[("problem primary key t has no", ": ALTER TABLE `t` DROP PRIMARY KEY, ADD COLUMN `id_sessionX` INT NOT NULL AUTO_INCREMENT PRIMARY KEY, ADD KEY (`timestamp`);")]),
    (primary, |f| change(f, |t| { t.columns[0] = column("id_sessionx", "char", 9, ""); t.unique_keys = vec![key("PRIMARY", "id_device,id_prospect")]; define(t, "(`id`)", "(`id_prospect`(9),`id_device`)"); }), &[("problem primary key t has no", ": ALTER TABLE `t` DROP PRIMARY KEY, ADD COLUMN `session_lock_id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY, ADD UNIQUE KEY (`id_prospect`,`id_device`);")]),
    (headroom, |f| change(f, |t| (t.next_id, t.columns[0].max) = (u64::MAX / 2, u64::MAX / 2)), &[("warning id headroom NEARLY EXHAUSTED", "when no row has a high id: ALTER TABLE `t` AUTO_INCREMENT = 1;")]),
    (headroom, |f| change(f, |t| t.next_id = 49), &[]),
    (headroom, |f| change(f, |t| t.next_id = 50), &[("warning id headroom over half: 49 of 99 ids used;", ": ALTER TABLE `t` AUTO_INCREMENT = 1;")]),
    (headroom, |f| change(f, |t| t.next_id = 90), &[("warning id headroom NEARLY EXHAUSTED: 89 of 99", ": ALTER TABLE `t` AUTO_INCREMENT = 1;")]),
    (headroom, |f| { f.highest_id = 49; change(f, |t| t.next_id = 90); }, &[("warning id headroom NEARLY EXHAUSTED: 89 of 99", "(the row with id 49 prevents ALTER TABLE `t` AUTO_INCREMENT = 1)")]),
    (rights, deny, &[("problem rights this user lacks rights (one; two)", ": GRANT x;")]),
    (rights, |f| f.rights = Some(Rights { refused: Some("why".to_owned()), ..Rights::default() }), &[("problem leases the database refuses the statements of leases", ": why")]),
    (rows_refused, |f| f.rows_refused = Some(rows(2, true)), &[("warning row ids at least 2 have ids that session-lock refuses (id_prospect=\"p\" id_device=\"d\" for one)", "before the bot moves to session-lock")]),
    (rows_ahead, |f| f.rows_ahead = Some(rows(2, false)), &[("warning rows 2 dated ahead", "(id_prospect=\"p\" id_device=\"d\" for one): a program on this table writes another time zone; a forced release frees a session")]),
    (messages, |f| f.messages = Messages::Refused("no".to_owned()), &[("warning messages no; until then", "are refused")]),
    (writes, |f| f.rights.as_mut().unwrap().writes = Writes::ReadOnly, &[("problem writes the server is read-only", "(tx_read_only) is on")]),
];

#[test]
fn each_wrong_fact_has_its_finding() {
    for (number, (check, change, expected)) in CASES.iter().enumerate() {
        let mut facts = good();
        change(&mut facts);
        let mut found = check(&facts);
        found.retain(|finding| finding.verdict != Good);
        let found = printed(&found);
        assert_eq!(found.len(), expected.len(), "case {number}: {found:?}");
        for (found, (start, end)) in found.iter().zip(*expected) {
            assert!(found.starts_with(start) && found.ends_with(end), "case {number}: {found}");
        }
    }
}

#[test]
fn what_was_not_read_has_no_finding() {
    let topics = |change: fn(&mut Facts)| {
        let mut facts = good();
        (facts.rights, facts.rows_ahead, facts.rows_refused) = (None, None, None);
        facts.messages = Messages::Unknown;
        change(&mut facts);
        all(&facts).iter().skip(5).map(|finding| finding.topic).collect::<Vec<_>>()
    };
    assert_eq!(topics(|f| f.table = None), ["table"]);
    let shape = ["table", "columns", "collation", "collation", "primary key", "unique key"];
    assert_eq!(topics(|f| change(f, |t| drop(t.unique_keys.remove(0)))), shape);
    // A refused statement that the shape explains: its rights are not known.
    let untold = topics(|f| f.rights = Some(Rights::default()));
    assert_eq!(untold, [&shape[..], &["id headroom"]].concat());
}

#[test]
fn a_read_only_server_leaves_the_table_usable() {
    let mut facts = good();
    facts.rights.as_mut().unwrap().writes = Writes::ReadOnly;
    assert!(rights(&facts).is_empty());
    assert!(is_usable(&all(&facts)));
    deny(&mut facts);
    assert!(!is_usable(&all(&facts)));
}

#[test]
fn a_report_names_every_problem_but_that_of_the_time_zone() {
    let problem = |topic| found(Problem, topic, &format!("{topic} is wrong"), None);
    let report = |topics: &[&'static str]| {
        let findings = topics.iter().flat_map(|topic| problem(topic));
        let good = found(Good, "rows", "good", None);
        Report { findings: findings.chain(good).collect(), ..Report::default() }
    };
    let all = report(&["table", TIME_ZONE, "rights"]);
    assert_eq!(all.why_unusable(), "table is wrong; rights is wrong");
    assert_eq!(all.of(Problem).count(), 3);
    assert!(!all.has_usable_zone() && report(&["table"]).has_usable_zone());
}

#[test]
fn differences_of_clocks_and_zones_have_their_sign() {
    let mut facts = good();
    for (clock_us, difference_s) in [(99_250_000, -0.75), (100_000_000, 0.0), (102_500_000, 2.5)] {
        facts.clock_us = clock_us;
        assert!((facts.clock_difference_s() - difference_s).abs() < 0.001, "{clock_us}");
    }
    for (offset_minutes, configured, difference) in [
        (90, None, 90),
        (90, Some("+02:30"), -60),
        (-90, Some("-01:30"), 0),
        (-90, Some("-02:45"), 75),
        (0, Some("+00:00"), 0),
    ] {
        (facts.offset_minutes, facts.configured_offset) = (offset_minutes, configured);
        assert_eq!(facts.zone_difference_minutes(), difference, "{configured:?}");
    }
}

#[test]
fn a_message_table_is_as_migrate_creates_it() {
    let wrong = |change: fn(&mut TableFacts)| {
        let mut found = message_table();
        change(&mut found);
        wrong_message_table(Some(&found), &good().lock_table().unwrap())
    };
    assert_eq!(wrong(|_| {}), None);
    let changes: [fn(&mut TableFacts); 9] = [
        |t| t.engine = "MyISAM".to_owned(),
        |t| t.columns[0].collation = "utf8mb4_general_ci".to_owned(),
        |t| t.unique_keys[0].is_prefix = true,
        |t| t.columns[3].width -= 1,
        |t| t.columns[5].data_type = "varchar".to_owned(),
        |t| t.columns[1].width = 254,
        |t| t.columns[5].nullable = false,
        |t| t.columns.push(column("note", "int", 0, "")),
        |t| t.definition = Definition::new("  `committed_us` int,\n KEY `k` (`x`,`committed_us`)"),
    ];
    for change in changes {
        assert!(wrong(change).unwrap().starts_with("session_lock_message is not as `session-lock"));
    }
    let missing = wrong_message_table(None, &good().lock_table().unwrap()).unwrap();
    assert!(missing.starts_with("there is no table session_lock_message,"));
    let mut facts = good();
    deny(&mut facts);
    let denied = wrong_message_rights(facts.rights.as_ref().unwrap()).unwrap();
    assert_eq!(denied, "this user lacks rights (one): GRANT x");
    let refused = Rights { refused: Some("why".to_owned()), ..Rights::default() };
    let refused = wrong_message_rights(&refused).unwrap();
    assert_eq!(refused, "why");
}
