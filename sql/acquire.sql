-- Write a lease over what a look saw, or change nothing: a compare-and-swap on the stored bytes.
--   :key                      NULL for a new row; the seen row's key to replace it, which burns no
--                             AUTO_INCREMENT id and works when there are none left
--   :id_prospect :id_device   the session
--   :seen                     the stored bytes that were seen, NULL if there was no row
--   :shift_us                 ttl - 30 s, in microseconds, rounded up to whole seconds by adding
--                             999999: a timestamp holds for 30 s, so this one expires with the ttl
--   :fencing_floor            the least fencing token: above that of the lease it replaces
--   :owner_token              20 digits
-- The outcome is read with look.sql in the same transaction: the row carries this owner token or
-- it does not. Affected rows are 1 (new), 2 (replaced), 0 (not written).
-- The guard names the session as well: with no ids left, MySQL lets the generated id collide with
-- the row of the highest id, and would overwrite that one, whoever holds it.
INSERT INTO {table} ({key}, id_prospect, id_device, timestamp)
VALUES (:key, :id_prospect, :id_device, CONCAT(
    DATE_FORMAT(NOW(6) + INTERVAL :shift_us MICROSECOND, '%Y-%m-%d %H:%i:%s.000000'),
    GREATEST(CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), :fencing_floor),
    :owner_token))
ON DUPLICATE KEY UPDATE timestamp = IF(
    id_prospect = :id_prospect AND id_device = :id_device AND CAST(timestamp AS BINARY) = :seen,
    CONCAT(
        DATE_FORMAT(NOW(6) + INTERVAL :shift_us MICROSECOND, '%Y-%m-%d %H:%i:%s.000000'),
        GREATEST(CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), :fencing_floor),
        :owner_token),
    timestamp)
