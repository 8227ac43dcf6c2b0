-- The database of the connection, and how texts compare in it by default.
-- Columns: database | collation
SELECT DATABASE(), @@collation_database
