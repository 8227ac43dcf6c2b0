-- Find out whether leases may be written, without writing: no row qualifies. It comes before every
-- read that may find nothing and is an answer all the same, because a server that takes no writes may be
-- a replica that lags behind. Fails with 1290 or 1836 on such a server, with 1142 for want of a right.
DELETE FROM {table} WHERE 1 = 0
