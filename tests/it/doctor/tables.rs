//! Lock tables of other kinds, for `repair`, as in `columns` and `keys`.

/// A table, and the findings of `check`.
pub struct Case {
    pub name: &'static str,
    pub create: &'static [&'static str],
    /// A part of each finding that is not `ok`.
    pub finds: &'static [&'static str],
    /// The columns, keys and other lines of the definition that the printed SQL may change.
    pub changes: &'static [&'static str],
    /// How many rows the printed SQL deletes.
    pub deletes: usize,
    /// Whether the table has leases after the SQL was run.
    pub grants: bool,
}

pub const WORKS: Case =
    Case { name: "", create: &[], finds: &[], changes: &[], deletes: 0, grants: true };

pub const REFUSED: Case = Case { grants: false, ..WORKS };

pub const ROWS: &str = "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES ('60123', '601', '2025-10-14 09:00:00'), ('60124', '601', '2025-10-14 09:00:01')";

/// Inserts another row for a session that already has one.
pub const DOUBLE: &str = "INSERT INTO `order` (id_prospect, id_device, timestamp) VALUES ('60123', '601', '2025-10-14 09:00:09')";

macro_rules! table {
    ($columns:literal) => {
        concat!("CREATE TABLE `order` (", $columns, ")")
    };
    ($columns:literal $options:literal) => {
        concat!("CREATE TABLE `order` (", $columns, ") ", $options)
    };
}
pub(super) use table;

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
        name: "MyISAM that counts up within each device",
        create: &[
            table!(
                "id INT AUTO_INCREMENT, id_prospect VARCHAR(50) NOT NULL, id_device VARCHAR(50) NOT NULL, timestamp VARCHAR(255) NOT NULL, PRIMARY KEY (id_device, id)" "ENGINE=MyISAM"
            ),
            ROWS,
        ],
        finds: &["order is MyISAM, and its id counts up within a group of rows"],
        ..REFUSED
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
        finds: &[
            "`is a date` checks every lease against",
            "`positive` checks every lease against",
            "a made-up session's lease was refused (",
        ],
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
        finds: &[
            "cut`s runs on every lease",
            "a made-up session's lease was refused (what was written is not",
        ],
        ..WORKS
    },
    Case {
        name: "a foreign key that refers to leases",
        create: &[
            table!(
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY u (id_prospect, id_device)"
            ),
            ROWS,
            "CREATE TABLE `no``tes` (lease INT, CONSTRAINT `of``lease` FOREIGN KEY (lease) REFERENCES `order` (id))",
        ],
        finds: &["the foreign key of`lease of no`tes refers to order"],
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
            "2 have ids that session-lock refuses (id_prospect=\"\" id_device=\"y\" for one)",
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
            "a unique key, u, that is a hash",
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
                "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(30) NOT NULL DEFAULT 'x' COMMENT 'c' CHECK (CHAR_LENGTH(timestamp) < 20), UNIQUE KEY u (id_prospect, id_device)"
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

pub const IN_MARIADB_SINCE_10_6: &[Case] = &[Case {
    name: "a key that is ignored",
    create: &[
        table!(
            "id INT AUTO_INCREMENT PRIMARY KEY, id_prospect VARCHAR(255) NOT NULL, id_device VARCHAR(255) NOT NULL, timestamp VARCHAR(255) NOT NULL, UNIQUE KEY `u``u` (id_prospect, id_device) IGNORED COMMENT ' IGNORED'"
        ),
        ROWS,
    ],
    finds: &["the key u`u is i"],
    changes: &["u``u"],
    ..WORKS
}];

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
        finds: &["the key u`u is i"],
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
