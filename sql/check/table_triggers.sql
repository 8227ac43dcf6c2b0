-- The triggers of a table. A trigger can change what an acquire or a renew writes.
--   :table   its name, in the connection's database
-- Columns: name
SELECT trigger_name FROM information_schema.triggers
WHERE event_object_schema = DATABASE() AND event_object_table = :table
