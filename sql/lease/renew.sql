-- Give a lease a new expiry, if this owner holds the lease and it has not expired.
--   :id_prospect :id_device :owner_token   the lease
--   :shift_us       new ttl - 30 s, in microseconds, rounded up as in acquire.sql
--   :max_hold_us    the longest hold, in microseconds: a lease held this long is not renewed
--   :max_shift_us   the longest hold - 30 s, rounded up likewise: the latest expiry
-- The outcome is read with read.sql in the same transaction. Dates and fencing tokens compare as
-- bytes: as text, MySQL 9 fails with 1267, and as numbers, garbage fails with 1292.
UPDATE {table} FORCE INDEX ({session_key})
SET timestamp = CONCAT(
    LEFT(
        LEAST(
            SYSDATE(6) + INTERVAL :shift_us MICROSECOND,
            FROM_UNIXTIME(SUBSTRING(timestamp, 27, 16) / 1000000) + INTERVAL :max_shift_us MICROSECOND),
        19),
    '.000000',
    RIGHT(timestamp, 36))
WHERE id_prospect = :id_prospect AND id_device = :id_device
    AND CAST(RIGHT(timestamp, 20) AS BINARY) = :owner_token
    AND CAST(timestamp AS BINARY) > CAST(SYSDATE(6) - INTERVAL 30 SECOND AS BINARY)
    AND CAST(SUBSTRING(timestamp, 27, 16) AS BINARY)
        > CAST(CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED) - :max_hold_us AS BINARY)
