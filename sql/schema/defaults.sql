-- The database of the connection, and its default collation.
-- Columns: database | collation
SELECT DATABASE(), @@collation_database
