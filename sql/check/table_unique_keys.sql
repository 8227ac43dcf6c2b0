-- The unique keys of a table, one row each, the primary key first.
--   :table   its name, in the connection's database
-- Columns: name of the key | its columns in alphabetical order, joined by commas | whether the key
-- has only a prefix of a column (0/1)
SELECT index_name, GROUP_CONCAT(COALESCE(column_name, '(expression)') ORDER BY column_name), MAX(sub_part IS NOT NULL)
FROM information_schema.statistics
WHERE table_schema = DATABASE() AND table_name = :table AND non_unique = 0
GROUP BY index_name
ORDER BY index_name <> 'PRIMARY', index_name
