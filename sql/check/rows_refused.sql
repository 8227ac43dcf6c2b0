-- Find rows whose ids session-lock refuses: it accepts 1-255 characters, without control characters
-- and without a blank at either end. Old programs may have written other ids.
--   :id_max_chars   most characters of an id
--   :limit          how many rows are read, those with the highest ids
-- Columns: number of such rows | number of rows read | id_prospect | id_device of one of them, at
-- most 256 characters of each
-- The expression finds control characters (Cc) anywhere, and blanks (Z) at the ends.
SELECT
    found.those,
    found.looked_at,
    LEFT(COALESCE(example.id_prospect, ''), 256),
    LEFT(COALESCE(example.id_device, ''), 256)
FROM (
    SELECT COALESCE(SUM(is_refused), 0) AS those, COUNT(*) AS looked_at, MAX(IF(is_refused, id, NULL)) AS id
    FROM (
        SELECT
            {key} AS id,
            CHAR_LENGTH(id_prospect) NOT BETWEEN 1 AND :id_max_chars
                OR CHAR_LENGTH(id_device) NOT BETWEEN 1 AND :id_max_chars
                OR CONVERT(id_prospect USING utf8mb4) REGEXP '\\p{Cc}|^\\p{Z}|\\p{Z}$'
                OR CONVERT(id_device USING utf8mb4) REGEXP '\\p{Cc}|^\\p{Z}|\\p{Z}$' AS is_refused
        FROM {table}
        ORDER BY {key} DESC
        LIMIT :limit) AS newest) AS found
LEFT JOIN {table} AS example ON example.{key} = found.id
