-- Find out whether another program holds a lock on the row of a session, without waiting for it.
--   :id_prospect :id_device   the session
-- Fails with 1205 (MariaDB) or 3572 (MySQL) if there is such a lock. Before MySQL 8.0 and MariaDB
-- 10.3, always fails with 1064.
SELECT {key}
FROM {table} FORCE INDEX ({session_key})
WHERE id_prospect = :id_prospect AND id_device = :id_device
FOR UPDATE NOWAIT
