-- The database server's own settings, which old neighbours on the table live by.
-- Columns: version | time zone by name | offset of that zone now, in minutes | clock in
-- microseconds since 1970
SELECT
    VERSION(),
    IF(@@global.time_zone = 'SYSTEM', @@system_time_zone, @@global.time_zone),
    TIMESTAMPDIFF(MINUTE, UTC_TIMESTAMP(), CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', @@global.time_zone)),
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)
