//! Lock tables with other keys.

use super::tables::{Case, DOUBLE, ROWS, WORKS, table};

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
        name: "a primary key besides the column that counts up",
        create: &[
            table!(
                "id INT AUTO_INCREMENT, uuid CHAR(36) NOT NULL DEFAULT '', id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (uuid), KEY n (id), UNIQUE KEY u (id_prospect, id_device)"
            ),
            "INSERT INTO `order` (uuid, id_prospect, id_device, timestamp) VALUES ('a', '60123', '601', ''), ('b', '60124', '601', '')",
        ],
        finds: &["order has no AUTO_INCREMENT primary key"],
        changes: &["PRIMARY KEY", "uuid"],
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
                "id INT UNSIGNED NOT NULL COMMENT 'n', id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (id), UNIQUE KEY u (id_prospect, id_device)"
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
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, hash CHAR(64) AS (SHA2(CONCAT(id_prospect, '/', id_device), 256)) STORED, UNIQUE KEY h (hash)"
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
        finds: &["(the row with id 2000000001 prevents ALTER TABLE `order` AUTO_INCREMENT = 1)"],
        ..WORKS
    },
];

/// On MariaDB 10.5, `check` does not recognize this foreign key, because of its name.
pub const KEYS_SINCE_10_6: &[Case] = &[Case {
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
}];
