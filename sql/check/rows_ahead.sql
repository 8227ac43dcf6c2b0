-- Rows that no lease explains: dated further ahead than the longest lease could be, or an old
-- program's row dated ahead at all (its clock or time zone is off). They hold their sessions.
--   :lease_chars   length of a stored lease
--   :ahead_s       the longest lease's date lies this far ahead, in seconds
--   :clock_s       how far apart clocks may be, in seconds
-- Columns: how many | one of them: id_prospect | id_device
SELECT COUNT(*), COALESCE(MIN(id_prospect), ''), COALESCE(MIN(id_device), '')
FROM {table}
WHERE TIMESTAMPDIFF(SECOND, NOW(), timestamp)
    > IF(CHAR_LENGTH(timestamp) = :lease_chars, :ahead_s, :clock_s)
