-- Give the lease that a look saw a new expiry, or change nothing: a compare-and-swap on the
-- stored bytes. The row is locked already, by renew_lock.sql.
--   :key                the seen row's primary key
--   :seen               the stored bytes that were seen
--   :expires_us         the expiry that was seen, in microseconds since 1970: never revive
--   :shift_us           new ttl - 30 s, in microseconds, rounded up as in acquire.sql
--   :tail               the seen fencing token and owner token, which stay
-- The outcome is read with look.sql in the same transaction.
UPDATE {table}
SET timestamp = CONCAT(
    DATE_FORMAT(NOW(6) + INTERVAL :shift_us MICROSECOND, '%Y-%m-%d %H:%i:%s.000000'), :tail)
WHERE {key} = :key
    AND CAST(timestamp AS BINARY) = :seen
    AND CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED) < :expires_us
