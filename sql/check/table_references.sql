-- The foreign keys that refer to a table, from tables of the same database.
--   :table   its name
-- Columns: table, name of the key
SELECT table_name, constraint_name FROM information_schema.referential_constraints
WHERE constraint_schema = DATABASE() AND referenced_table_name = :table
