-- Create the table of answered messages; one that exists stays as it is.
-- The primary key is the message's name: a second record of one message cannot be written down.
-- It begins with the customer, so that commits of different conversations go to different pages of
-- the table and wait for no common counter, and those of one conversation find theirs in memory.
-- The ids are copied from the lock table, so that they compare as they do there; message ids are
-- bytes, and compare exactly. Old records are found by committed_us: reading all others for it
-- would push the lock table out of the database's memory.
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
