-- Look at the rows of some sessions: at most one row comes back for each.
--   :at                       which session it is, a number of the caller's
--   :id_prospect :id_device   the session
-- Columns: which session | primary key | stored bytes | age of the stored date in microseconds,
-- NULL for what is no date | the database's clock, in microseconds since 1970
-- Date arithmetic on stored text has its place here and in no statement that writes: a SELECT
-- gives NULL for garbage, where a strict write fails with 1292, on every later try too.
/*each UNION ALL*/
SELECT
    :at,
    {key},
    CAST(timestamp AS BINARY),
    TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)),
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)
FROM {table}
WHERE id_prospect = :id_prospect AND id_device = :id_device
/*end*/
