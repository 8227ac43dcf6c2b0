-- Find out whether leases may be released, without deleting: no row qualifies.
-- Fails with 1142 for want of a right, with 1290 or 1836 on a read-only server.
DELETE FROM {table} WHERE 1 = 0
