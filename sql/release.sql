-- Delete the row that a look saw, or nothing: a compare-and-swap on the stored bytes.
--   :key                      the seen row's primary key
--   :id_prospect :id_device   the session
--   :seen                     the stored bytes that were seen
-- Affected rows are 1 (deleted) or 0 (the row had changed).
-- The row is found by its primary key alone; CONCAT keeps the other indexes out of it, because on
-- a small table MariaDB would walk, and lock, every row of the device.
DELETE FROM {table}
WHERE {key} = :key
    AND CONCAT(id_prospect) = :id_prospect AND CONCAT(id_device) = :id_device
    AND CAST(timestamp AS BINARY) = :seen
