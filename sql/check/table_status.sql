-- A table as a whole; no row if it does not exist.
--   :table   its name, in the connection's database
-- Columns: engine | next AUTO_INCREMENT id
SELECT COALESCE(engine, table_type), COALESCE(auto_increment, 0)
FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name = :table
