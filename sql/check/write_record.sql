-- Write a record of a message that does not exist, as a commit without a result does. The same
-- transaction deletes it with message/forget.sql.
--   :id_prospect :id_device    a session that nobody uses
--   :message_id                drawn at random
--   :owner_token               any bytes
--   :committed_us              0
INSERT INTO session_lock_message (id_prospect, id_device, message_id, owner_token, committed_us, result)
VALUES (:id_prospect, :id_device, :message_id, :owner_token, :committed_us, NULL)
