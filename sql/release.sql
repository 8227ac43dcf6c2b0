-- Delete rows that a look saw, each or not at all: a compare-and-swap on the stored bytes.
--   :key                      the seen row's primary key
--   :id_prospect :id_device   the session
--   :seen                     the stored bytes that were seen
-- Affected rows: how many were deleted; the others had changed. Which ones, lock_rows.sql tells
-- before, in the same transaction.
-- Rows are found by their primary keys alone: by another index MariaDB would walk, and lock, every
-- row of the device if the table is small.
DELETE {table} FROM {table} FORCE INDEX (PRIMARY)
WHERE {key} IN (/*each ,*/ :key/*end*/)
    AND (/*each OR*/ ({key} = :key AND CAST(timestamp AS BINARY) = :seen
        AND id_prospect = :id_prospect AND id_device = :id_device) /*end*/)
