-- Read the stored bytes of several rows, to find out which of them changed.
--   :keys   their primary keys, at most 1,000
-- Columns: primary key | stored bytes
SELECT {key}, CAST(timestamp AS BINARY) FROM {table} WHERE {key} IN (:keys)
