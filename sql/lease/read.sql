-- Read the rows of some sessions: at most one row comes back for each.
--   :id_device :id_prospects   the sessions of one device; each device has its own
-- Columns: primary key | stored bytes | id_prospect | id_device | four words: age of the stored date in
-- microseconds, "-" for what is no date; the database's clock, in microseconds since 1970; the clock of
-- packet_clock.sql, 0 without one; whether the server takes writes (0/1): if not, it may be a replica that
-- lags behind. A column for each would cost a tenth of a refusal.
-- Date arithmetic on stored text has its place here and in no statement that writes: a SELECT gives NULL
-- for garbage, where a strict write fails with 1292, on every later try too.
-- The index is named to spare the database the choice, which takes longer than the read.
SELECT
    {key},
    CAST(timestamp AS BINARY),
    id_prospect,
    id_device,
    CONCAT_WS(' ',
        COALESCE(TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)), '-'),
        CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED),
        COALESCE(@packet_clock_us, 0),
        @@read_only = '0' AND @@innodb_read_only = 0)
FROM {table} FORCE INDEX ({session_key})
WHERE /*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)) /*end*/
