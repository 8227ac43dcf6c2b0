-- The engine and the AUTO_INCREMENT counter of a table; no row if the table does not exist.
--   :table   its name, in the connection's database
-- Columns: engine | next AUTO_INCREMENT id, 0 if it has none
SELECT COALESCE(engine, table_type), COALESCE(auto_increment, 0)
FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name = :table
