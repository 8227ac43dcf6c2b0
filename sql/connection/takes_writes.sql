-- Fail with 1690 if the server is read-only, even for a superuser, who could write to a replica:
-- rows that are read there may be out of date. This is the first statement of every packet whose
-- answer depends on the table. MySQL and MariaDB each skip the comment that is for the other. Also
-- store how far the server's own time zone is ahead of this session's, in microseconds, for
-- lease/read.sql and lease/list.sql: the rows of old programs are dated in the server's zone. Also
-- reset LAST_INSERT_ID(), which lease/acquire.sql sets, and lease/release_answered.sql and
-- lease/written.sql read.
SET @takes_writes = ~0 + (
    CAST(@@global.read_only AS CHAR) NOT IN ('0', 'OFF')
    OR @@global.innodb_read_only <> 0
    /*!80000 OR @@transaction_read_only */ /*M! OR @@tx_read_only */),
    @zone_ahead_us = TIMESTAMPDIFF(
        MICROSECOND, NOW(6), CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', @@global.time_zone)),
    @last_insert_id = LAST_INSERT_ID(0)
