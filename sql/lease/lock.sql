-- Lock the row of a session, if there is one.
--   :id_prospect :id_device   the session
-- An INSERT ... SELECT does not lock the rows that it reads. With this lock, the lease cannot
-- change before the transaction ends.
SELECT {key}
FROM {table} FORCE INDEX ({session_key})
WHERE id_prospect = :id_prospect AND id_device = :id_device
FOR UPDATE
