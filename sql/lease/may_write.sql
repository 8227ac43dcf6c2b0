-- Find out whether leases may be written, without writing: no row qualifies. Precedes every read
-- whose answer may be that there is no row, because a server that takes no writes may be a replica
-- that lags. Fails with 1290 or 1836 on such a server, and with 1142 if a privilege is missing.
DELETE FROM {table} WHERE 1 = 0
