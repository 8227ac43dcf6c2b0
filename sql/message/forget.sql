-- Delete one record of an answered message, by its primary key and as it was seen.
--   :id_prospect :id_device   the session
--   :message_id               the message
--   :committed_us             when it was committed
DELETE FROM session_lock_message
WHERE id_prospect = :id_prospect AND id_device = :id_device AND message_id = :message_id
    AND committed_us = :committed_us
