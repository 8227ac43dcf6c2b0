-- Find out how a column's collation compares a text: two texts with one weight are one id.
--   :text   an id
-- Columns: its weight | whether the column's character set has all of its characters (0/1)
SELECT
    WEIGHT_STRING(CONVERT(:text USING {charset}) COLLATE {collation}),
    CAST(CONVERT(CONVERT(:text USING {charset}) USING utf8mb4) AS BINARY) = CAST(:text AS BINARY)
