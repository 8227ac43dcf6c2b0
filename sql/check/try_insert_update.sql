-- Find out whether leases may be inserted and updated. Writes nothing: no row qualifies, and no id
-- is used up. Fails with 1142 if a privilege is missing, and with 1290 or 1836 on a read-only
-- server.
INSERT INTO {table} ({key}, id_prospect, id_device, timestamp)
SELECT 1, '', '', '' FROM {table} WHERE 1 = 0
ON DUPLICATE KEY UPDATE timestamp = ''
