-- Find out which rows of some sessions nobody holds a lock on, without waiting for the others.
--   :id_device :id_prospects   the sessions of one device; each device has its own
-- Columns: primary key
-- Fails with 1064 before MySQL 8.0 and MariaDB 10.6.
SELECT {key}
FROM {table} FORCE INDEX ({session_key})
WHERE /*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)) /*end*/
FOR UPDATE SKIP LOCKED
