-- Date a lease that acquire.sql has just written, now that nobody else can touch its row.
--   :key                      as in acquire.sql
--   :id_prospect :id_device   the session
--   :shift_us :owner_token    as in acquire.sql
-- A statement reads its clock when it begins, and an INSERT may wait for a lock after that: for so
-- long that another server's lease of the session came and went, whose fencing token is higher
-- then. This clock is later than anything that happened to the session, and the ttl begins here.
-- ROW_COUNT() is that of acquire.sql: what it did not write is somebody else's, and stays.
UPDATE {table}
SET timestamp = CONCAT(
    DATE_FORMAT(NOW(6) + INTERVAL :shift_us MICROSECOND, '%Y-%m-%d %H:%i:%s.000000'),
    GREATEST(CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), CAST(MID(timestamp, 27, 16) AS UNSIGNED)),
    :owner_token)
WHERE {key} = IFNULL(:key, LAST_INSERT_ID())
    AND CONCAT(id_prospect) = :id_prospect AND CONCAT(id_device) = :id_device
    AND RIGHT(CAST(timestamp AS BINARY), 20) = :owner_token
    AND ROW_COUNT() > 0
