-- The columns of a table, in the table's order.
--   :table   its name, in the connection's database
-- Columns: name | data type | width in characters, 0 if it is not text | width in bytes, 0 if it is
-- not text | whether an INSERT may omit it (0/1) | whether it may be NULL (0/1) | whether it is
-- AUTO_INCREMENT (0/1) | collation, empty if it is not text | highest value of an integer column
SELECT
    column_name,
    data_type,
    COALESCE(character_maximum_length, 0),
    COALESCE(character_octet_length, 0),
    is_nullable = 'YES' OR column_default IS NOT NULL OR extra LIKE '%auto_increment%' OR extra LIKE '%GENERATED%',
    is_nullable = 'YES',
    extra LIKE '%auto_increment%',
    COALESCE(collation_name, ''),
    CASE data_type WHEN 'tinyint' THEN 127 WHEN 'smallint' THEN 32767 WHEN 'mediumint' THEN 8388607
        WHEN 'int' THEN 2147483647 ELSE 9223372036854775807 END
        * IF(column_type LIKE '%unsigned%' AND data_type <> 'bigint', 2, 1)
FROM information_schema.columns
WHERE table_schema = DATABASE() AND table_name = :table
ORDER BY ordinal_position
