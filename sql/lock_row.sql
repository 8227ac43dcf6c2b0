-- Lock a row by its primary key.
--   :key   a seen row's primary key
-- Waits for whoever holds it. The next statement's clock, which a statement reads when
-- it begins, is then the one that counts: a lease that expired during the wait is not revived.
SELECT {key}
FROM {table} FORCE INDEX (PRIMARY)
WHERE {key} = :key
FOR UPDATE
