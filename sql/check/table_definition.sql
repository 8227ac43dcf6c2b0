-- The definition of a table.
-- Columns: name | CREATE TABLE statement
SHOW CREATE TABLE {table}
