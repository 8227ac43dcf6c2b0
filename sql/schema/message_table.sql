-- Create the table of answered messages. An existing table is not changed.
-- The primary key names the message, so no message can be recorded twice. It begins with the
-- customer. So commits of different conversations write to different pages, without waiting for a
-- shared counter, and commits of one conversation find their page in memory.
-- The ids have the character sets and collations of the lock table, so that both tables compare
-- them alike. These are named here because servers that replicate by GTID, and Percona XtraDB
-- Cluster, refuse CREATE TABLE ... SELECT. Message ids are bytes and compare exactly. The key on
-- committed_us finds old records: a read of all records would push the lock table out of the
-- database's memory. ROW_FORMAT is named because the primary key is too long for the older row
-- formats, which may be the server's default.
CREATE TABLE IF NOT EXISTS {database}.session_lock_message (
    id_prospect VARCHAR(255) CHARACTER SET {prospect_charset} COLLATE {prospect_collation} NOT NULL,
    id_device VARCHAR(255) CHARACTER SET {device_charset} COLLATE {device_collation} NOT NULL,
    message_id VARBINARY(255) NOT NULL,
    owner_token VARBINARY(20) NOT NULL,
    committed_us BIGINT UNSIGNED NOT NULL,
    result VARBINARY(512) NULL,
    PRIMARY KEY (id_prospect, id_device, message_id),
    KEY committed_us (committed_us)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
