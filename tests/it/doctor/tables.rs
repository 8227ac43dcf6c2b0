//! The tables of `repair`.

/// A table, and what `check` says of it.
pub struct Case {
    pub name: &'static str,
    pub create: &'static [&'static str],
    /// A part of each finding that is not good.
    pub finds: &'static [&'static str],
    /// The columns, keys and other lines of the definition that the printed SQL may change.
    pub changes: &'static [&'static str],
    /// How many rows the printed SQL deletes.
    pub deletes: usize,
    /// Whether there are leases in it once the SQL has been run.
    pub grants: bool,
}

const WORKS: Case =
    Case { name: "", create: &[], finds: &[], changes: &[], deletes: 0, grants: true };

const REFUSED: Case = Case { grants: false, ..WORKS };

const ROWS: &str = "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES ('60123', '601', '2025-10-14 09:00:00'), ('60124', '601', '2025-10-14 09:00:01')";

/// A row of more, whose session has one already.
const DOUBLE: &str = "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES ('60123', '601', '2025-10-14 09:00:09')";

macro_rules! table {
    ($columns:literal) => {
        concat!("CREATE TABLE `order` (", $columns, ")")
    };
    ($columns:literal $options:literal) => {
        concat!("CREATE TABLE `order` (", $columns, ") ", $options)
    };
}

pub const OUR_COLUMNS: &[Case] = &[
    Case {
        name: "as in production",
        create: &[
            table!(
                "id_sessionX INT(11) AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE (id_prospect, id_device)"
            ),
            ROWS,
        ],
        ..WORKS
    },
    Case {
        name: "latin1",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE (id_prospect, id_device)" "CHARSET=latin1"),
            ROWS,
        ],
        ..WORKS
    },
    Case {
        name: "utf8mb3, compact",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE (id_prospect, id_device)" "CHARSET=utf8mb3 ROW_FORMAT=COMPACT"),
            ROWS,
        ],
        ..WORKS
    },
    Case {
        name: "ids of two collations, one of them utf16",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) CHARACTER SET utf16 NOT NULL, id_device VARCHAR(255) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE (id_prospect, id_device)"
            ),
            ROWS,
        ],
        ..WORKS
    },
    Case {
        name: "CHAR",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect CHAR(255) NOT NULL, id_device CHAR(255) NOT NULL, timestamp CHAR(62) NOT NULL, UNIQUE (id_prospect, id_device)"
            ),
            ROWS,
        ],
        ..WORKS
    },
    Case {
        name: "names in upper case",
        create: &[
            table!(
                "ID INT AUTO_INCREMENT PRIMARY KEY, ID_PROSPECT VARCHAR(255) NOT NULL, Id_Device VARCHAR(255) NOT NULL, `Timestamp` VARCHAR(255) NOT NULL, UNIQUE KEY U (Id_Device, Id_Prospect)"
            ),
            ROWS,
        ],
        ..WORKS
    },
    Case {
        name: "a DATETIME, in upper case",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, `TimeStamp` DATETIME NOT NULL DEFAULT '2000-01-01 00:00:00' COMMENT 'since, it''s \"NOT NULL\"', last VARCHAR(9) DEFAULT 'l', KEY k (`TimeStamp`), UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
        ],
        finds: &[
            "order.TimeStamp is datetime(0), but a lease is a text of 62 characters of one byte",
        ],
        changes: &["TimeStamp"],
        ..WORKS
    },
    Case {
        name: "a TIMESTAMP with the clock as its default",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP COMMENT 'c', UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
        ],
        finds: &["order.timestamp is timestamp(0)"],
        changes: &["timestamp"],
        ..WORKS
    },
    Case {
        name: "a short timestamp of another collation",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(61) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL DEFAULT 'never' COMMENT 'c', UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
        ],
        finds: &["order.timestamp is varchar(61) latin1_bin"],
        changes: &["timestamp"],
        ..WORKS
    },
    Case {
        name: "a timestamp of two bytes a character",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL COMMENT 'c', UNIQUE KEY u (id_prospect, id_device)" "CHARSET=utf16"),
            ROWS,
        ],
        finds: &["order.timestamp is varchar(255) utf16_general_ci"],
        changes: &["timestamp"],
        ..WORKS
    },
    Case {
        name: "NULL in every column",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255), id_device VARCHAR(255) COMMENT 'd', timestamp VARCHAR(255), UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
            "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES (NULL, '601', '1'), (NULL, '601', '2'), ('60125', NULL, '3'), ('60126', '601', NULL)",
        ],
        finds: &[
            "id_prospect is varchar(255) utf8mb4",
            "id_device is varchar(255) utf8mb4",
            "timestamp is varchar(255) utf8mb4",
        ],
        changes: &["id_prospect", "id_device", "timestamp"],
        deletes: 4,
        ..WORKS
    },
    Case {
        name: "numbers",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect BIGINT UNSIGNED NOT NULL COMMENT 'p', id_device BIGINT NOT NULL DEFAULT 7, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
        ],
        finds: &["id_prospect is bigint(0)", "id_device is bigint(0)"],
        changes: &["id_prospect", "id_device"],
        ..WORKS
    },
    Case {
        name: "bytes, which tell letter case apart",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARBINARY(255) NOT NULL, id_device VARBINARY(100) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
            "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES ('a', 'Bot', ''), ('a', 'bot', '')",
        ],
        finds: &["id_prospect is varbinary(255)", "id_device is varbinary(100)"],
        changes: &["id_prospect", "id_device"],
        ..WORKS
    },
    Case {
        name: "TEXT with a key on its beginning",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect TEXT NOT NULL, id_device TINYTEXT CHARACTER SET latin1 NOT NULL, timestamp TEXT NOT NULL, UNIQUE KEY u (id_prospect(100), id_device(100)) COMMENT 'c'" "ROW_FORMAT=COMPACT"),
            ROWS,
            "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES (REPEAT('x', 256), 'b', '')",
        ],
        finds: &[
            "id_prospect is text(65535)",
            "id_device is tinytext(255)",
            "compares only the beginnings",
        ],
        changes: &["id_prospect", "id_device", "u", ")"],
        deletes: 1,
        ..WORKS
    },
    Case {
        name: "ids too long for one key",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(1000) NOT NULL DEFAULT 'p', id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect(255), id_device)"
            ),
            ROWS,
            "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES (REPEAT('x', 256), 'b', '')",
        ],
        finds: &["id_prospect is varchar(1000)", "compares only the beginnings"],
        changes: &["id_prospect", "u"],
        deletes: 1,
        ..WORKS
    },
    Case {
        name: "longer ids that fit in one key",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(300) NOT NULL, id_device VARCHAR(400) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
        ],
        ..WORKS
    },
    Case {
        name: "191 characters, compact",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(191) NOT NULL COMMENT 'p', id_device VARCHAR(191) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device), KEY d (id_device)" "ROW_FORMAT=COMPACT COMMENT='t'"),
            ROWS,
        ],
        finds: &["id_prospect is varchar(191)", "id_device is varchar(191)"],
        changes: &["id_prospect", "id_device", ")"],
        ..WORKS
    },
    Case {
        name: "one narrow id, whose key needs no other row format",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(20) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)" "CHARSET=latin1 ROW_FORMAT=REDUNDANT"),
            ROWS,
        ],
        finds: &["id_device is varchar(20)"],
        changes: &["id_device"],
        ..WORKS
    },
    Case {
        name: "a generated id",
        create: &[table!(
            "id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(99), id_prospect VARCHAR(255) AS (CONCAT(a, 'x')) STORED, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
        )],
        finds: &["order.id_prospect is a generated column"],
        ..REFUSED
    },
    Case {
        name: "another table",
        create: &[table!(
            "id INT AUTO_INCREMENT PRIMARY KEY, phone VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL UNIQUE, timestamp DATETIME NOT NULL"
        )],
        finds: &[
            "order has no column id_prospect (it has id, phone, id_device, timestamp)",
            "order.timestamp is datetime(0)",
        ],
        changes: &["timestamp"],
        ..REFUSED
    },
];

pub const KEYS: &[Case] = &[
    Case {
        name: "the keys of MySQL 5.6",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY `by (191)` (id_device(191), id_prospect(191)) COMMENT 'c', KEY d (id_device(191))" "ROW_FORMAT=COMPACT COMMENT='t'"),
            ROWS,
        ],
        finds: &["by (191), that compares only the beginnings"],
        changes: &["by (191)", ")"],
        ..WORKS
    },
    Case {
        name: "no key on the session, and doubled rows",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, KEY k (id_prospect, id_device)"
            ),
            ROWS,
            DOUBLE,
            DOUBLE,
        ],
        finds: &["has no unique key on (id_prospect, id_device)"],
        changes: &["UNIQUE KEY `id_prospect`"],
        deletes: 1,
        ..WORKS
    },
    Case {
        name: "a key with a column too many, and doubled rows",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, tenant INT NOT NULL DEFAULT 0, UNIQUE KEY k (id_prospect, id_device, tenant)"
            ),
            ROWS,
            "INSERT INTO `order` (id_prospect, id_device, timestamp, tenant) SELECT id_prospect, id_device, 'newer', 1 FROM `order`",
        ],
        finds: &["has no unique key on (id_prospect, id_device)"],
        changes: &["UNIQUE KEY `id_prospect`"],
        deletes: 2,
        ..WORKS
    },
    Case {
        name: "unique keys that are alike for one session only",
        create: &[
            table!(
                "id SERIAL PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY a (id_prospect, id_device), UNIQUE KEY b (id_device, id_prospect), UNIQUE KEY c (id_device, id_prospect, timestamp(9)), UNIQUE KEY d (timestamp(9), id)"
            ),
            ROWS,
        ],
        finds: &["c (id_device,id_prospect,timestamp)"],
        changes: &["c"],
        ..WORKS
    },
    Case {
        name: "another unique key, which a foreign key needs",
        create: &[
            "CREATE TABLE bots (bot VARCHAR(255) PRIMARY KEY)",
            "INSERT INTO bots VALUES ('601')",
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device), UNIQUE KEY `per``device` (id_device) COMMENT 'c', CONSTRAINT `on``bot` FOREIGN KEY (id_device) REFERENCES bots (bot)"
            ),
            "INSERT INTO `order` VALUES (7, '60123', '601', '2025-10-14 09:00:00')",
        ],
        finds: &[
            "the foreign key `on``bot` refuses each session whose id_device is not in `bots`",
            "another unique key, per`device (id_device)",
        ],
        changes: &["per``device", "on``bot"],
        ..WORKS
    },
    Case {
        name: "a foreign key on an id that must grow",
        create: &[
            "CREATE TABLE bots (bot VARCHAR(99) PRIMARY KEY)",
            "INSERT INTO bots VALUES ('601')",
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(99) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_device, id_prospect), CONSTRAINT fk FOREIGN KEY (id_device) REFERENCES bots (bot)"
            ),
            ROWS,
        ],
        finds: &["the foreign key `fk`", "id_device is varchar(99)"],
        changes: &["id_device", "fk"],
        ..WORKS
    },
    Case {
        name: "the session as primary key",
        create: &[
            table!(
                "id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (id_device, id_prospect)"
            ),
            ROWS,
        ],
        finds: &["has no AUTO_INCREMENT primary key"],
        changes: &["id_sessionX", "PRIMARY KEY", "UNIQUE KEY `id_device`"],
        ..WORKS
    },
    Case {
        name: "the session as primary key, compact, narrow and by its beginning",
        create: &[
            table!("id_sessionX CHAR(9), id_prospect VARCHAR(191) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (id_prospect, id_device(100))" "ROW_FORMAT=COMPACT"),
            ROWS,
        ],
        finds: &["id_prospect is varchar(191)", "has no AUTO_INCREMENT primary key"],
        changes: &[
            "id_prospect",
            "session_lock_id",
            "PRIMARY KEY",
            "UNIQUE KEY `id_prospect`",
            ")",
        ],
        ..WORKS
    },
    Case {
        name: "the session as primary key beside a number",
        create: &[
            table!(
                "id INT AUTO_INCREMENT, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (id_prospect, id_device), KEY n (id)"
            ),
            ROWS,
        ],
        finds: &["has no AUTO_INCREMENT primary key"],
        changes: &["PRIMARY KEY", "UNIQUE KEY `id_prospect`"],
        ..WORKS
    },
    Case {
        name: "a number that does not count up",
        create: &[
            table!(
                "id INT UNSIGNED NOT NULL DEFAULT 7 COMMENT 'n', id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (id), UNIQUE KEY u (id_prospect, id_device)"
            ),
            "INSERT INTO `order` VALUES (5, '60123', '601', '2025-10-14 09:00:00'), (3, '60124', '601', '2025-10-14 09:00:00')",
        ],
        finds: &["has no AUTO_INCREMENT primary key"],
        changes: &["id"],
        ..WORKS
    },
    Case {
        name: "a number that is unique, but no primary key",
        create: &[
            table!(
                "id INT AUTO_INCREMENT UNIQUE, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
        ],
        finds: &["has no AUTO_INCREMENT primary key"],
        changes: &["PRIMARY KEY"],
        ..WORKS
    },
    Case {
        name: "no key at all",
        create: &[
            table!(
                "id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL"
            ),
            ROWS,
            DOUBLE,
        ],
        finds: &["has no AUTO_INCREMENT primary key", "has no unique key on"],
        changes: &["id_sessionX", "PRIMARY KEY", "UNIQUE KEY `id_prospect`"],
        deletes: 1,
        ..WORKS
    },
    Case {
        name: "a UUID as primary key",
        create: &[
            table!(
                "uuid CHAR(36) NOT NULL PRIMARY KEY COMMENT 'u', id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            "INSERT INTO `order` VALUES (UUID(), '60123', '601', '2025-10-14 09:00:00'), (UUID(), '60124', '601', '2025-10-14 09:00:00')",
        ],
        finds: &["has no AUTO_INCREMENT primary key", "order.uuid has no default"],
        changes: &["uuid", "id_sessionX", "PRIMARY KEY"],
        ..WORKS
    },
    Case {
        name: "a composite primary key with a date",
        create: &[
            table!(
                "id INT AUTO_INCREMENT, created DATETIME NOT NULL, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (id, created), UNIQUE KEY u (id_prospect, id_device)"
            ),
            "INSERT INTO `order` VALUES (NULL, NOW(), '60123', '601', '2025-10-14 09:00:00')",
        ],
        finds: &["has no AUTO_INCREMENT primary key", "order.created has no default"],
        changes: &["created", "PRIMARY KEY"],
        ..WORKS
    },
    Case {
        name: "a hash of the session",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, hash CHAR(32) AS (MD5(CONCAT(id_prospect, '/', id_device))) STORED, UNIQUE KEY h (hash)"
            ),
            ROWS,
        ],
        finds: &["has no unique key on", "another unique key, h (hash)"],
        changes: &["UNIQUE KEY `id_prospect`", "h"],
        ..WORKS
    },
    Case {
        name: "ids used up",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
            "ALTER TABLE `order` AUTO_INCREMENT = 2000000000",
        ],
        finds: &["NEARLY EXHAUSTED"],
        ..WORKS
    },
    Case {
        name: "ids used up, by a row that lives",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)" "AUTO_INCREMENT = 2000000000"),
            ROWS,
        ],
        finds: &[
            "(the row with id 2000000001 is in the way of ALTER TABLE `order` AUTO_INCREMENT = 1)",
        ],
        ..WORKS
    },
];

pub const KINDS: &[Case] = &[
    Case {
        name: "a view",
        create: &[
            "CREATE TABLE locks (id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device))",
            "CREATE VIEW `order` AS SELECT * FROM locks",
        ],
        finds: &["order is a view, which has no keys: name its table"],
        ..REFUSED
    },
    Case {
        name: "partitions by id",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY COMMENT 'i', id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL" "PARTITION BY HASH (id) PARTITIONS 3"),
            ROWS,
            DOUBLE,
        ],
        finds: &["order is partitioned", "has no unique key on"],
        changes: &["/*!", " PARTITION", "PARTITION", "PARTITIONS", "UNIQUE KEY `id_prospect`"],
        deletes: 1,
        ..WORKS
    },
    Case {
        name: "partitions by device",
        create: &[
            table!("id INT AUTO_INCREMENT, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (id, id_device), UNIQUE KEY u (id_prospect, id_device)" "PARTITION BY KEY (id_device) PARTITIONS 3"),
            ROWS,
        ],
        finds: &["order is partitioned", "has no AUTO_INCREMENT primary key"],
        changes: &["/*!", " PARTITION", "PARTITION", "PARTITIONS", "PRIMARY KEY"],
        ..WORKS
    },
    Case {
        name: "MyISAM",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(200) NOT NULL COMMENT 'p', id_device VARCHAR(50) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect(100), id_device)" "ENGINE=MyISAM COMMENT='t'"),
            ROWS,
        ],
        finds: &[
            "order is MyISAM, which has no transactions",
            "id_prospect is varchar(200)",
            "id_device is varchar(50)",
            "compares only the beginnings",
        ],
        changes: &[")", "id_prospect", "id_device", "u"],
        ..WORKS
    },
    Case {
        name: "MyISAM with options of its own",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, FULLTEXT KEY f (timestamp)" "ENGINE=MyISAM ROW_FORMAT=FIXED KEY_BLOCK_SIZE=1024 CHECKSUM=1 DELAY_KEY_WRITE=1 PACK_KEYS=1"),
            ROWS,
            DOUBLE,
        ],
        finds: &["order is MyISAM, which has no transactions", "has no unique key on"],
        changes: &[")", "PRIMARY KEY", "FULLTEXT KEY", "UNIQUE KEY `id_prospect`"],
        deletes: 1,
        ..WORKS
    },
    Case {
        name: "MEMORY",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)" "ENGINE=MEMORY"),
            ROWS,
        ],
        finds: &["order is MEMORY, which has no transactions"],
        changes: &[")"],
        ..WORKS
    },
    Case {
        name: "a condition on the timestamp",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device), CONSTRAINT `is a date` CHECK (CHAR_LENGTH(timestamp) = 19), CONSTRAINT positive CHECK (id_device <> '')"
            ),
            ROWS,
        ],
        finds: &["`is a date` checks every lease against", "`positive` checks every lease against"],
        changes: &["is a date", "positive"],
        ..WORKS
    },
    Case {
        name: "a trigger",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
            "CREATE TRIGGER `cut``s` BEFORE INSERT ON `order` FOR EACH ROW SET NEW.timestamp = LEFT(NEW.timestamp, 19)",
        ],
        finds: &["cut`s runs on every lease"],
        ..WORKS
    },
    Case {
        name: "rows that cannot be leases",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
            "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES ('9', 'a', '2099-01-01'), ('8', 'b', '2099-01-01'), (' x', 'z', ''), ('', 'y', 'no date')",
        ],
        finds: &[
            "2 dated ahead of the database's clock, which hold their sessions until then (id_prospect=\"8\" id_device=\"b\" for one)",
            "2 with ids for which a request is refused (id_prospect=\"\" id_device=\"y\" for one)",
        ],
        ..WORKS
    },
];

pub const OTHER_COLUMNS: &[Case] = &[
    Case {
        name: "columns without a default",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, `we``ird (1) NOT NULL` VARCHAR(20) NOT NULL COMMENT 'w', n DECIMAL(9,2) NOT NULL COMMENT 'n', e ENUM('it''s', 'b (c') NOT NULL COMMENT 'e', s SET('a', 'b') NOT NULL, d DATETIME(3) NOT NULL COMMENT 'it''s NOT NULL', y YEAR NOT NULL, b BIT(3) NOT NULL, t TEXT CHARACTER SET latin1 NOT NULL, j JSON NOT NULL, g POINT NOT NULL, v VARBINARY(9) NOT NULL, f DOUBLE NOT NULL, ok INT NOT NULL DEFAULT 3, UNIQUE KEY u (id_prospect, id_device)"
            ),
            "INSERT INTO `order` (id_prospect, id_device, timestamp, `we``ird (1) NOT NULL`, n, e, s, d, y, b, t, j, g, v, f) VALUES ('60123', '601', '', 'a', 1.25, 'b (c', 'a', NOW(), 2025, 1, 't', '{}', POINT(1, 2), 'v', 2.5)",
        ],
        finds: &[
            "order.we`ird (1) NOT NULL has no default",
            "order.n has",
            "order.e has",
            "order.s has",
            "order.d has",
            "order.y has",
            "order.b has",
            "order.t has",
            "order.j has",
            "order.g has",
            "order.v has",
            "order.f has",
        ],
        changes: &["we``ird (1) NOT NULL", "n", "e", "s", "d", "y", "b", "t", "j", "g", "v", "f"],
        ..WORKS
    },
    Case {
        name: "columns that are checked",
        create: &[
            "CREATE TABLE tenants (id INT PRIMARY KEY)",
            "INSERT INTO tenants VALUES (5)",
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, tenant INT NOT NULL COMMENT 't', stage INT NOT NULL, label VARCHAR(9) NOT NULL CHECK (label <> ''), UNIQUE KEY u (id_prospect, id_device), CONSTRAINT fk FOREIGN KEY (tenant) REFERENCES tenants (id), CONSTRAINT positive CHECK (stage > 0)"
            ),
            "INSERT INTO `order` VALUES (1, '60123', '601', '', 5, 1, 'l')",
        ],
        finds: &[
            "order.tenant has no default",
            "order.stage has no default",
            "order.label has no default",
        ],
        changes: &["tenant", "stage", "label"],
        ..WORKS
    },
    Case {
        name: "a generated column",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, both_ids VARCHAR(255) AS (LEFT(CONCAT(id_prospect, id_device), 255)) VIRTUAL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
        ],
        ..WORKS
    },
];

pub const IN_MARIADB: &[Case] = &[
    Case {
        name: "versions",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(99) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)" "WITH SYSTEM VERSIONING"),
            ROWS,
            "UPDATE `order` SET timestamp = 'x'",
        ],
        finds: &["order keeps all versions of its rows", "id_device is varchar(99)"],
        changes: &[")", "id_device"],
        ..WORKS
    },
    Case {
        name: "versions with columns of their own",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, `fr``om` TIMESTAMP(6) GENERATED ALWAYS AS ROW START, Until TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (`fr``om`, Until), UNIQUE KEY u (id_prospect, id_device)" "WITH SYSTEM VERSIONING"),
            ROWS,
            "UPDATE `order` SET timestamp = 'x'",
        ],
        finds: &["order keeps all versions of its rows"],
        changes: &[")", "fr``om", "Until", "PRIMARY KEY", "u", "PERIOD"],
        ..WORKS
    },
    Case {
        name: "versions in partitions",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)" "WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME (PARTITION p0 HISTORY, PARTITION p1 CURRENT)"),
            ROWS,
            "UPDATE `order` SET timestamp = 'x'",
        ],
        finds: &["order keeps all versions of its rows"],
        changes: &[")", "PARTITION", "(PARTITION"],
        ..WORKS
    },
    Case {
        name: "a key that is ignored",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY `u``u` (id_prospect, id_device) IGNORED COMMENT ' IGNORED'"
            ),
            ROWS,
        ],
        finds: &["u`u is hidden from the queries"],
        changes: &["u``u"],
        ..WORKS
    },
    Case {
        name: "hashes of long texts",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(2000) NOT NULL, id_device TEXT NOT NULL, timestamp VARCHAR(255) NOT NULL, notes TEXT, UNIQUE KEY u (id_prospect, id_device), UNIQUE KEY n (notes)"
            ),
            ROWS,
        ],
        finds: &[
            "id_prospect is varchar(2000)",
            "id_device is text(65535)",
            "compares only the beginnings",
            "another unique key, n (notes)",
        ],
        changes: &["id_prospect", "id_device", "u", "n"],
        ..WORKS
    },
    Case {
        name: "Aria",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect(200), id_device(40))" "ENGINE=Aria TRANSACTIONAL=1 PAGE_CHECKSUM=1 ROW_FORMAT=PAGE"),
            ROWS,
        ],
        finds: &["order is Aria, which has no transactions", "compares only the beginnings"],
        changes: &[")", "u"],
        ..WORKS
    },
    Case {
        name: "a condition in the column",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(30) NOT NULL DEFAULT 'x' CHECK (CHAR_LENGTH(timestamp) < 20) COMMENT 'c', UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
        ],
        finds: &["the column timestamp checks every lease", "timestamp is varchar(30)"],
        changes: &["timestamp"],
        ..WORKS
    },
    Case {
        name: "MyISAM in partitions",
        create: &[
            table!("id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL" "ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 3"),
            ROWS,
        ],
        finds: &["order is partitioned", "order is MyISAM", "has no unique key on"],
        changes: &[")", " PARTITION", "PARTITION", "PARTITIONS", "UNIQUE KEY `id_prospect`"],
        ..WORKS
    },
    Case {
        name: "a sequence",
        create: &["CREATE SEQUENCE `order`"],
        finds: &["order is a sequence, which has no keys"],
        ..REFUSED
    },
];

pub const IN_MYSQL: &[Case] = &[
    Case {
        name: "an invisible primary key that the server made",
        create: &[
            "SET SESSION sql_generate_invisible_primary_key = ON",
            table!(
                "id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL"
            ),
            "SET SESSION sql_generate_invisible_primary_key = OFF",
            ROWS,
            DOUBLE,
        ],
        finds: &["has no unique key on"],
        changes: &["UNIQUE KEY `id_prospect`"],
        deletes: 1,
        ..WORKS
    },
    Case {
        name: "invisible columns",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY INVISIBLE, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL INVISIBLE, timestamp VARCHAR(20) NOT NULL INVISIBLE COMMENT 'c', x INT NOT NULL INVISIBLE, d DATE NOT NULL COMMENT 'd' INVISIBLE, UNIQUE KEY u (id_prospect, id_device)"
            ),
            "INSERT INTO `order` (id_prospect, id_device, timestamp, x, d) VALUES ('60123', '601', '2025-10-14 09:00:00', 1, NOW())",
        ],
        finds: &["timestamp is varchar(20)", "order.x has no default", "order.d has no default"],
        changes: &["timestamp", "x", "d"],
        ..WORKS
    },
    Case {
        name: "an invisible key",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY `u``u` (id_prospect, id_device DESC) COMMENT 'INVISIBLE' INVISIBLE"
            ),
            ROWS,
        ],
        finds: &["u`u is hidden from the queries"],
        changes: &["u``u"],
        ..WORKS
    },
    Case {
        name: "a key on an expression",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL DEFAULT (CONCAT('a', 'b')), id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(61) NOT NULL DEFAULT (CONCAT('(', 'x')) COMMENT 'c', UNIQUE KEY u (id_prospect, id_device), UNIQUE KEY e ((CONCAT(id_device, id_prospect))) COMMENT 'e'"
            ),
            ROWS,
        ],
        finds: &["timestamp is varchar(61)", "another unique key, e"],
        changes: &["timestamp", "e"],
        ..WORKS
    },
];
