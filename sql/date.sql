-- Date the claims that acquire.sql has just written, now that nobody else can touch their rows:
-- this makes them leases.
--   :id_device :id_prospects   the sessions of one device; each device has its own
--   :claims                    as in acquire.sql, of all
--   :shift_us                  ttl - 30 s, in microseconds, rounded up to whole seconds by
--                              adding 999999: a timestamp holds for 30 s, so these expire with
--                              the ttl
-- A statement reads its clock when it begins, and an INSERT may wait for a lock after that: for so
-- long that another server's lease of the session came and went, whose fencing token is higher
-- then. This clock is later than anything that happened to the session, and the ttl begins here.
-- The fencing token is the clock, or the next one that is odd for a caller's token, even for ours.
-- The index is named because on a small table the database would rather read, and lock, all of it.
UPDATE {table} FORCE INDEX ({session_key})
SET timestamp = CONCAT(
    DATE_FORMAT(NOW(6) + INTERVAL :shift_us MICROSECOND, '%Y-%m-%d %H:%i:%s.000000'),
    (GREATEST(CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), CAST(MID(timestamp, 27, 16) AS UNSIGNED))
        + 1 - (MID(timestamp, 26, 1) = '1')) DIV 2 * 2 + (MID(timestamp, 26, 1) = '1'),
    RIGHT(timestamp, 20))
WHERE (/*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)) /*end*/)
    AND CAST(timestamp AS BINARY) IN (:claims)
