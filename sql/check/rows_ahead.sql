-- Find rows with an impossible date: leases that are dated further ahead of the clock than the
-- longest lease, and rows of old programs that are dated ahead at all, because of a wrong clock or
-- time zone. Each of them holds its session until its date.
--   :lease_chars   length of a stored lease, in characters
--   :ahead_s       how far ahead the longest lease can be dated, in seconds
--   :clock_s       tolerated difference between two clocks, in seconds
--   :limit         how many rows are read, those with the highest ids
-- Columns: number of such rows | number of rows read | id_prospect | id_device of one of them, at
-- most 256 characters of each
SELECT
    found.those,
    found.looked_at,
    LEFT(COALESCE(example.id_prospect, ''), 256),
    LEFT(COALESCE(example.id_device, ''), 256)
FROM (
    SELECT COALESCE(SUM(is_ahead), 0) AS those, COUNT(*) AS looked_at, MAX(IF(is_ahead, id, NULL)) AS id
    FROM (
        SELECT
            {key} AS id,
            COALESCE(TIMESTAMPDIFF(SECOND, NOW(), timestamp)
                > IF(CHAR_LENGTH(timestamp) = :lease_chars, :ahead_s, :clock_s), FALSE) AS is_ahead
        FROM {table}
        ORDER BY {key} DESC
        LIMIT :limit) AS newest) AS found
LEFT JOIN {table} AS example ON example.{key} = found.id
