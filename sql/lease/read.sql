-- Read the rows of some sessions: at most one row per session.
--   :id_device :id_prospects   the sessions of one device; repeated for each device
-- Columns: primary key | stored bytes | id_prospect | id_device | three words: the age of the stored
-- date in microseconds, "-" if it is no date; the database's clock in microseconds since 1970;
-- @zone_ahead_us of connection/takes_writes.sql. With three columns in place of the words, a refusal
-- would cost a tenth more.
-- Only statements that do not write may compute with the stored date: for garbage, a SELECT returns
-- NULL, but a write in strict mode fails with 1292, and would fail again on every retry.
-- The index is named because the choice of an index takes the database longer than the read.
SELECT
    {key},
    CAST(timestamp AS BINARY),
    id_prospect,
    id_device,
    CONCAT_WS(' ',
        COALESCE(TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)), '-'),
        CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED),
        COALESCE(@zone_ahead_us, 0))
FROM {table} FORCE INDEX ({session_key})
WHERE /*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)) /*end*/
