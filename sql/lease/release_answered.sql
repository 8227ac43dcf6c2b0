-- Release leases that acquire.sql has just granted, if their messages are answered.
--   :id_prospect :id_device :owner_token   the lease
--   :message_id                            the message
-- A commit locks the lease's row first. This transaction holds that lock now, so the record that
-- this statement reads, or its absence, is final. A lease of the same owner token that was granted
-- before this packet is not released.
DELETE {table} FROM {table} FORCE INDEX ({session_key})
WHERE {table}.id_prospect = :id_prospect AND {table}.id_device = :id_device
    AND CAST(RIGHT({table}.timestamp, 20) AS BINARY) = :owner_token
    AND CAST(SUBSTRING({table}.timestamp, 27, 16) AS BINARY) >= CAST(@packet_clock_us AS BINARY)
    AND EXISTS (
        SELECT 1 FROM session_lock_message AS message
        WHERE message.id_prospect = :id_prospect AND message.id_device = :id_device
            AND message.message_id = :message_id)
