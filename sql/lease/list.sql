-- A page of rows, in the order of the primary key: nothing is sorted and no index is needed.
--   :after       the primary key that the page begins behind
--   :limit       rows of the page
--   :id_device   whose rows are meant, NULL for everybody's
-- Columns: the first four of read.sql | id_prospect | id_device | whether the row is meant (0/1). Rows that
-- are not meant are in the page too, so that a page costs the same whatever is meant.
SELECT
    {key},
    CAST(timestamp AS BINARY),
    TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)),
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED),
    id_prospect,
    id_device,
    COALESCE(id_device = :id_device, TRUE)
FROM {table}
WHERE {key} > :after
ORDER BY {key}
LIMIT :limit
