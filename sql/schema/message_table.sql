-- Create the table of answered messages. An existing table is not changed.
-- The primary key names the message, so no message can be recorded twice. It begins with the
-- customer: commits of different conversations write to different pages and share no counter that
-- they would wait for, and commits of one conversation find their page in memory.
-- The ids are copied from the lock table, so that both tables compare them alike. Message ids are
-- bytes and compare exactly. The key on committed_us finds old records: reading all records for
-- that would push the lock table out of the database's memory.
CREATE TABLE IF NOT EXISTS session_lock_message (
    message_id VARBINARY(255) NOT NULL,
    owner_token VARBINARY(20) NOT NULL,
    committed_us BIGINT UNSIGNED NOT NULL,
    result VARBINARY(512) NULL,
    PRIMARY KEY (id_prospect, id_device, message_id),
    KEY committed_us (committed_us)
) ENGINE = InnoDB
SELECT id_prospect, id_device, '' AS message_id, '' AS owner_token, 0 AS committed_us, NULL AS result
FROM {table}
WHERE 1 = 0
