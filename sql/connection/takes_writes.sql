-- Fail with 1690 if the server is read-only, whatever this user may do: a superuser could write to a
-- replica, and what anybody reads there may be out of date. The first statement of every packet
-- whose answer depends on the table. MySQL and MariaDB each skip the comment that is for the other.
-- Stores how far the server's own time zone is ahead of this session's, in microseconds, for
-- lease/read.sql and lease/list.sql: old programs' rows are dated in it.
SET @takes_writes = ~0 + (
    CAST(@@global.read_only AS CHAR) NOT IN ('0', 'OFF')
    OR @@global.innodb_read_only <> 0
    /*!80000 OR @@transaction_read_only */ /*M! OR @@tx_read_only */),
    @zone_ahead_us = TIMESTAMPDIFF(
        MICROSECOND, NOW(6), CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', @@global.time_zone))
