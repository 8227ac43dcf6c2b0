-- Record that a message is answered, right after lease/release.sql has released the lease.
--   :id_prospect :id_device            the session
--   :message_id :owner_token :result   what to record
-- ROW_COUNT() is the count of lease/release.sql: if no lease was released, nothing is recorded. An
-- existing record is not changed. If the connection ended during lease/release.sql, ROW_COUNT() is
-- negative. Then the sum fails with 1690: otherwise the server would go on to COMMIT, and release
-- the lease without a record.
INSERT INTO session_lock_message (id_prospect, id_device, message_id, owner_token, committed_us, result)
SELECT
    :id_prospect, :id_device, :message_id, :owner_token,
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), :result
FROM DUAL
WHERE ~0 + (ROW_COUNT() < 0) AND ROW_COUNT() > 0
ON DUPLICATE KEY UPDATE session_lock_message.message_id = session_lock_message.message_id
