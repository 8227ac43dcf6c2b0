-- Lock the row of a session, if it has one.
--   :id_prospect :id_device   the session
-- An INSERT ... SELECT takes no lock on what it reads; behind this one, the lease cannot change before
-- the transaction ends.
SELECT {key}
FROM {table} FORCE INDEX ({session_key})
WHERE id_prospect = :id_prospect AND id_device = :id_device
FOR UPDATE
