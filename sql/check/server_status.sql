-- The version, time zone and clock of the database server. Old programs that use the table write
-- local time in this zone.
-- Columns: version | name of the time zone | its current offset from UTC in minutes, NULL if
-- unknown | clock in microseconds since 1970
SELECT
    VERSION(),
    IF(@@global.time_zone = 'SYSTEM', @@system_time_zone, @@global.time_zone),
    TIMESTAMPDIFF(MINUTE, UTC_TIMESTAMP(), CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', @@global.time_zone)),
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)
