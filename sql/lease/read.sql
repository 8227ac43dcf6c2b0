-- Read the rows of some sessions: at most one row comes back for each.
--   :id_device :id_prospects   the sessions of one device; each device has its own
-- Columns: primary key | stored bytes | age of the stored date in microseconds, NULL for what is
-- no date | the database's clock, in microseconds since 1970 | id_prospect | id_device
-- | the clock of packet_clock.sql, 0 without one | whether the server takes writes (0/1): if not, it
-- may be a replica that lags behind
-- Date arithmetic on stored text has its place here and in no statement that writes: a SELECT
-- gives NULL for garbage, where a strict write fails with 1292, on every later try too.
-- The index is named to spare the database the choice, which takes longer than the read.
SELECT
    {key},
    CAST(timestamp AS BINARY),
    TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)),
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED),
    id_prospect,
    id_device,
    COALESCE(CAST(@packet_clock_us AS UNSIGNED), 0),
    @@read_only = '0' AND @@innodb_read_only = 0
FROM {table} FORCE INDEX ({session_key})
WHERE /*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)) /*end*/
