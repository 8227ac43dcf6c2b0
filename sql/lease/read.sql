-- Read the rows of some sessions: at most one row per session.
--   :id_device :id_prospects   the sessions of one device; repeated for each device
--   :server_zone               whether old programs write the time zone of the server (0/1). If that
--                              zone changes, their rows hold until they are stale in both zones
-- Columns: primary key | stored bytes | id_prospect | id_device | three words: the age of the stored
-- date in microseconds, "-" if it is no date; the database's clock in microseconds since 1970; the
-- clock of packet_clock.sql, 0 without one. Three columns instead of the words would make a refusal
-- cost a tenth more.
-- Only statements that do not write may compute with the stored date: for garbage, a SELECT returns
-- NULL, but a write in strict mode fails with 1292, and would fail again on every retry.
-- The index is named because choosing it would take the database longer than the read.
SELECT
    {key},
    CAST(timestamp AS BINARY),
    id_prospect,
    id_device,
    CONCAT_WS(' ',
        COALESCE(
            IF(:server_zone AND CHAR_LENGTH(timestamp) <> 62, LEAST(
                TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)),
                TIMESTAMPDIFF(MICROSECOND, timestamp, CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', @@global.time_zone))), NULL),
            TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)),
            '-'),
        CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED),
        COALESCE(@packet_clock_us, 0))
FROM {table} FORCE INDEX ({session_key})
WHERE /*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)) /*end*/
