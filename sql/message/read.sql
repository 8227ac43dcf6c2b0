-- Read the records of some messages: at most one row per message.
--   :id_prospect :id_device   the session
--   :message_id               the message
-- Columns: owner token of the commit | time since the commit in microseconds | result, may be NULL
-- | id_prospect | id_device | message_id
SELECT
    owner_token,
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - CAST(committed_us AS SIGNED),
    result,
    id_prospect,
    id_device,
    message_id
FROM session_lock_message
WHERE /*each OR*/
    (id_prospect = :id_prospect AND id_device = :id_device AND message_id = :message_id)
    /*end*/
