-- Take back a lease that acquire.sql has just written, if its message is answered.
--   :id_prospect :id_device   the session
--   :key                      as in acquire.sql
--   :owner_token              the lease's
--   :message_id               the message
-- Between the look at the record and the write of the lease, another worker may have acquired,
-- committed and released. Whoever commits locks the lease's row first; we hold that lock now, so
-- what this statement sees is final, and nobody ever sees the lease.
DELETE FROM {table}
WHERE {key} = IFNULL(:key, LAST_INSERT_ID())
    AND CONCAT(id_prospect) = :id_prospect AND CONCAT(id_device) = :id_device
    AND RIGHT(CAST(timestamp AS BINARY), 20) = :owner_token
    AND EXISTS (
        SELECT 1 FROM session_lock_message AS message
        WHERE message.id_prospect = :id_prospect AND message.id_device = :id_device
            AND message.message_id = :message_id)
