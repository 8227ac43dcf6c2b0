-- Lock a session's row, by its primary key alone.
--   :key   the seen row's primary key
-- Waits for whoever holds the row. The next statement's clock, which a statement reads when it
-- begins, is then the one that counts: a lease that expired during the wait is not revived.
SELECT 1 FROM {table} WHERE {key} = :key FOR UPDATE
