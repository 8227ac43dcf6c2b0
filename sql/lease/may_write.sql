-- Find out whether leases may be written. Writes nothing: no row qualifies. Fails with 1290 or 1836
-- on a server that is read-only for this user, and with 1142 if a privilege is missing.
DELETE FROM {table} WHERE 1 = 0
