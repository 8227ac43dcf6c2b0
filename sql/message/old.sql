-- Find the oldest records of answered messages.
--   :kept_us   how long records are kept, in microseconds
--   :limit     most records
-- Columns: id_prospect | id_device | message_id | committed_us
-- A SELECT locks nothing. If there is no old record, it reads only one record.
SELECT id_prospect, id_device, message_id, committed_us
FROM session_lock_message
WHERE committed_us < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED) - :kept_us
ORDER BY committed_us
LIMIT :limit
