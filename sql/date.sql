-- Date the claims that acquire.sql has just written, now that nobody else can touch their rows:
-- this makes them leases.
--   :id_device :id_prospects   the sessions of one device; each device has its own
--   :claims                    as in acquire.sql, of all
--   :shift_us                  ttl - 30 s, in microseconds, rounded up to whole seconds by
--                              adding 999999: a timestamp holds for 30 s, so these expire with
--                              the ttl
--   :fencing_floor             the least fencing token: above that of the lease that is replaced
--   :odd                       1 if the fencing token is to be odd, else 0
-- A statement reads its clock when it begins, and an INSERT may wait for a lock after that: for so
-- long that another server's lease of the session came and went, whose fencing token is higher
-- then. This clock is later than anything that happened to the session, and the ttl begins here.
-- Affected rows: how many were dated, and so how many of the claims are leases now. LAST_INSERT_ID
-- puts the fencing token into the answer: the clock, or the next number that is odd for a caller's
-- token, even for ours.
-- The index is named because on a small table the database would rather read, and lock, all of it.
UPDATE {table} FORCE INDEX ({session_key})
SET timestamp = CONCAT(
    LEFT(NOW(6) + INTERVAL :shift_us MICROSECOND, 19), '.000000',
    LAST_INSERT_ID(
        (GREATEST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), :fencing_floor) + 1 - :odd) DIV 2 * 2 + :odd),
    RIGHT(timestamp, 20))
WHERE (/*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)) /*end*/)
    AND CAST(timestamp AS BINARY) IN (:claims)
