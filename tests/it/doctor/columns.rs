//! Lock tables with columns of other types, or with additional columns.

use super::tables::{Case, REFUSED, ROWS, WORKS, table};

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
        finds: &["order.timestamp is varchar(255) utf16_"],
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
            "1 have ids that session-lock refuses",
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
        finds: &[
            "id_prospect is varchar(1000)",
            "compares only the beginnings",
            "1 have ids that session-lock refuses",
        ],
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
        name: "a column of a spatial key",
        create: &[table!(
            "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, g POINT NOT NULL, SPATIAL KEY at (g), UNIQUE KEY u (id_prospect, id_device)"
        )],
        finds: &["order.g has no default, so no lease can be written: give it one, or drop it"],
        ..REFUSED
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
