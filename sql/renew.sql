-- Give the lease that a look saw a new expiry, or change nothing: a compare-and-swap on the
-- stored bytes. The row is locked already, by lock_row.sql.
--   :key                the seen row's primary key
--   :seen               the stored bytes that were seen
--   :expires_us         the expiry that was seen, in microseconds since 1970: never revive
--   :shift_us           new ttl - 30 s, in microseconds, rounded up as in date.sql
--   :latest_us          the end of the longest hold, in microseconds since 1970
--   :latest_shift_us    the longest hold - 30 s, rounded up likewise, after the grant
--   :granted_us         the grant, which is the fencing token
--   :tail               1 if the lease is firm, else 0; the seen fencing token and owner token, which stay
-- The outcome is read with look.sql in the same transaction.
UPDATE {table}
SET timestamp = CONCAT(
    DATE_FORMAT(
        LEAST(
            NOW(6) + INTERVAL :shift_us MICROSECOND,
            FROM_UNIXTIME(:granted_us / 1000000) + INTERVAL :latest_shift_us MICROSECOND),
        '%Y-%m-%d %H:%i:%s.00000'),
    :tail)
WHERE {key} = :key
    AND CAST(timestamp AS BINARY) = :seen
    AND CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED) < LEAST(:expires_us, :latest_us)
