-- Delete rows that a look saw, each or not at all: a compare-and-swap on the stored bytes.
--   :keys                      the seen rows' primary keys
--   :seen                      the stored bytes that were seen, of all: two leases have the same only
--                              if one owner's token is for both
--   :id_device :id_prospects   the sessions of one device; each device has its own
-- Affected rows: how many were deleted; the others had changed. See all_changed.sql.
-- Rows are found by their primary keys alone: by another index MariaDB would walk, and lock, every
-- row of the device if the table is small.
DELETE {table} FROM {table} FORCE INDEX (PRIMARY)
WHERE {key} IN (:keys)
    AND CAST(timestamp AS BINARY) IN (:seen)
    AND (/*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)) /*end*/)
