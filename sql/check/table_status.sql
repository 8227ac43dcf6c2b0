-- A table and its AUTO_INCREMENT counter; no row if the table does not exist.
--   :table   its name, in the connection's database
-- Columns: type | engine, empty if it has none | next AUTO_INCREMENT id, 0 if it has none | row
-- format | options of CREATE TABLE
SELECT
    table_type,
    COALESCE(engine, ''),
    COALESCE(auto_increment, 0),
    COALESCE(row_format, ''),
    COALESCE(create_options, '')
FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name = :table
