-- Lock rows by their primary keys alone, and look at what is locked.
--   :key   a seen row's primary key
-- Columns: primary key | stored bytes
-- Waits for whoever holds one of the rows. The next statement's clock, which a statement reads when
-- it begins, is then the one that counts: a lease that expired during the wait is not revived.
SELECT {key}, CAST(timestamp AS BINARY)
FROM {table} FORCE INDEX (PRIMARY)
WHERE {key} IN (/*each ,*/ :key/*end*/)
FOR UPDATE
