-- Find rows that cannot be leases: rows dated further ahead of the clock than the longest lease,
-- and rows of old programs that are dated ahead at all, because their clock or time zone is wrong.
-- Each of them holds its session until its date.
--   :lease_chars   length of a stored lease, in characters
--   :ahead_s       how far ahead the longest lease can be dated, in seconds
--   :clock_s       tolerated difference between two clocks, in seconds
-- Columns: number of rows | lowest id_prospect of them | lowest id_device of them
SELECT COUNT(*), COALESCE(MIN(id_prospect), ''), COALESCE(MIN(id_device), '')
FROM {table}
WHERE TIMESTAMPDIFF(SECOND, NOW(), timestamp)
    > IF(CHAR_LENGTH(timestamp) = :lease_chars, :ahead_s, :clock_s)
