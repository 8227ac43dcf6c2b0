-- Record that a message is answered, if its worker holds the lease. lease/lock.sql has locked the
-- lease's row, if there was one, so not even an old program can change the row before the transaction
-- ends.
--   :id_prospect :id_device :owner_token   the lease
--   :message_id :result                    what to record
-- Affected rows: 1 (recorded) or 0 (the lease is not this owner's or has expired, or there is
-- already a record, which is not changed: NOT EXISTS, because a proxy may have a row counted that
-- does not change). The record is read with read.sql in the same transaction.
INSERT INTO session_lock_message (id_prospect, id_device, message_id, owner_token, committed_us, result)
SELECT
    :id_prospect, :id_device, :message_id, :owner_token,
    CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED), :result
FROM {table} FORCE INDEX ({session_key})
WHERE id_prospect = :id_prospect AND id_device = :id_device
    AND CAST(RIGHT(timestamp, 20) AS BINARY) = :owner_token
    AND CAST(timestamp AS BINARY) > CAST(SYSDATE(6) - INTERVAL 30 SECOND AS BINARY)
    AND NOT EXISTS (
        SELECT 1 FROM session_lock_message AS message
        WHERE message.id_prospect = :id_prospect AND message.id_device = :id_device
            AND message.message_id = :message_id)
ON DUPLICATE KEY UPDATE session_lock_message.message_id = session_lock_message.message_id
