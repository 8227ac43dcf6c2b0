-- Find out which of some rows nobody holds a lock on, without waiting for the others.
--   :key   a seen row's primary key
-- Columns: primary key
-- Fails with 1064 before MySQL 8.0 and MariaDB 10.6.
SELECT {key}
FROM {table} FORCE INDEX (PRIMARY)
WHERE {key} IN (/*each ,*/ :key/*end*/)
FOR UPDATE SKIP LOCKED
