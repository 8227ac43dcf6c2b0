-- Release a lease that acquire.sql has just granted, if its message is answered.
--   :id_prospect :id_device :owner_token   the lease
--   :message_id                            the message
-- LAST_INSERT_ID() is the fencing token of the lease that acquire.sql wrote; 0 if it wrote none, and
-- then nothing is read or locked here. If the row has another fencing token, its lease is an earlier
-- one, or another server's, and its owner may be using it. No statement deletes a lease without its
-- owner token, so this one names it, too.
-- If the connection ended during acquire.sql, ROW_COUNT() is negative. Then the sum fails with 1690,
-- so that the server does not go on to COMMIT.
-- A commit locks the lease's row first. This transaction holds that lock now, so the record that
-- this statement reads, or its absence, is final.
DELETE {table} FROM {table} FORCE INDEX ({session_key})
WHERE ~0 + (ROW_COUNT() < 0) AND LAST_INSERT_ID() > 0
    AND {table}.id_prospect = :id_prospect AND {table}.id_device = :id_device
    AND CAST(RIGHT({table}.timestamp, 20) AS BINARY) = :owner_token
    AND CAST(SUBSTRING({table}.timestamp, 27, 16) AS BINARY) = CAST(LAST_INSERT_ID() AS BINARY)
    AND EXISTS (
        SELECT 1 FROM session_lock_message AS message
        WHERE message.id_prospect = :id_prospect AND message.id_device = :id_device
            AND message.message_id = :message_id)
