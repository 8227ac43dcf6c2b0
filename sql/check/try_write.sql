-- Write a record of a message that does not exist, to find out whether the server finishes a write:
-- a cluster without its quorum, or a server with a full disk, accepts statements and then waits in
-- COMMIT. The same transaction deletes the record with message/forget.sql.
--   :message_id     drawn at random
--   :committed_us   0
INSERT INTO session_lock_message (id_prospect, id_device, message_id, owner_token, committed_us)
VALUES ('session-lock check', 'session-lock check', :message_id, '', :committed_us)
