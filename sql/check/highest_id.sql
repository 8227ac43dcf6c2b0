-- The highest id that a row has; 0 if there is no row.
SELECT COALESCE(MAX({key}), 0) FROM {table}
