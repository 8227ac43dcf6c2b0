-- Take back a claim that acquire.sql has just written, if its message is answered.
--   :id_prospect :id_device :claim   as in acquire.sql
--   :message_id                      the message
-- Between the look at the record and the claim, another worker may have acquired, committed and
-- released. Whoever commits locks the lease's row first; we hold that lock now, so what this
-- statement sees is final, and nobody ever sees the lease. The index as in date.sql.
DELETE {table} FROM {table} FORCE INDEX ({session_key})
WHERE {table}.id_prospect = :id_prospect AND {table}.id_device = :id_device
    AND CAST({table}.timestamp AS BINARY) = :claim
    AND EXISTS (
        SELECT 1 FROM session_lock_message AS message
        WHERE message.id_prospect = :id_prospect AND message.id_device = :id_device
            AND message.message_id = :message_id)
