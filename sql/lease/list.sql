-- Read a page of rows in the order of the primary key, which needs neither a sort nor another
-- index.
--   :after       the page begins after this primary key
--   :limit       most rows on the page
--   :id_device   the device whose rows match; NULL for all devices
-- Columns: primary key | stored bytes | age of the stored date in microseconds, NULL if it is no
-- date | the database's clock in microseconds since 1970 | id_prospect | id_device | whether the
-- row matches (0/1) | @zone_ahead_us of connection/takes_writes.sql. The page also contains the
-- rows that do not match, so that its cost does not depend on the number of matching rows.
SELECT
    {key},
    CAST(timestamp AS BINARY),
    TIMESTAMPDIFF(MICROSECOND, timestamp, NOW(6)),
    CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED),
    id_prospect,
    id_device,
    COALESCE(id_device = :id_device, TRUE),
    COALESCE(@zone_ahead_us, 0)
FROM {table}
WHERE {key} > :after
ORDER BY {key}
LIMIT :limit
