-- Record that a message is answered, if the lease that a look saw still stands. Its row is locked
-- already, by lock_row.sql: what this statement reads of it, even an old program cannot change
-- before the transaction ends.
--   :key                      the seen row's primary key
--   :seen                     the stored bytes that were seen
--   :expires_us               the expiry that was seen, in microseconds since 1970
--   :id_prospect :id_device   the session
--   :message_id :owner_token :result   what to record
-- Affected rows are 1 (recorded) or 0 (the lease has changed or ended, or there is a record
-- already, which stays as it is). The outcome is read with look_message.sql in the same transaction.
INSERT INTO session_lock_message (id_prospect, id_device, message_id, owner_token, committed_us, result)
SELECT
    :id_prospect, :id_device, :message_id, :owner_token,
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), :result
FROM {table}
WHERE {key} = :key
    AND CAST(timestamp AS BINARY) = :seen
    AND CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED) < :expires_us
ON DUPLICATE KEY UPDATE session_lock_message.message_id = session_lock_message.message_id
