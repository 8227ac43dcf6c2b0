-- Look whether some messages are answered: at most one row comes back for each.
--   :at                       which session it is, as in look.sql
--   :id_prospect :id_device   the session
--   :message_id               the message
-- Columns: which session | owner token that committed it | time since then in microseconds
-- | result, may be NULL
/*each UNION ALL*/
SELECT
    :at,
    owner_token,
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - CAST(committed_us AS SIGNED),
    result
FROM session_lock_message
WHERE id_prospect = :id_prospect AND id_device = :id_device AND message_id = :message_id
/*end*/
