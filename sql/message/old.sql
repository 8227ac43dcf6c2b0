-- Find the oldest records of answered messages.
--   :kept_us   how long records are kept, in microseconds
--   :limit     how many at most
-- Columns: id_prospect | id_device | message_id | committed_us
-- A SELECT: it locks nothing, and finds nothing at the cost of one row.
SELECT id_prospect, id_device, message_id, committed_us
FROM session_lock_message
WHERE committed_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED) - :kept_us
ORDER BY committed_us
LIMIT :limit
