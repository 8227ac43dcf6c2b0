-- Create the lock table as it is in production. An existing table is not changed.
-- The ids compare by the database's default collation, as the ids in the bot's other tables do,
-- unless that is binary, with which they would be bytes. A lease is stored as ASCII, so its column
-- has another collation if an ASCII character of the default one takes more than one byte.
-- ROW_FORMAT is named because the unique key is too long for the older row formats, which may be the
-- server's default.
CREATE TABLE IF NOT EXISTS {database}.{table} (
    id_sessionX INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
    id_prospect VARCHAR(255) CHARACTER SET {prospect_charset} COLLATE {prospect_collation} NOT NULL,
    id_device VARCHAR(255) CHARACTER SET {device_charset} COLLATE {device_collation} NOT NULL,
    timestamp VARCHAR(255) CHARACTER SET {lease_charset} COLLATE {lease_collation} NOT NULL,
    UNIQUE KEY uniq_session (id_prospect, id_device)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
