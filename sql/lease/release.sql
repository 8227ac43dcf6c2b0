-- Release a lease: delete its row, if this owner holds the lease and it has not expired.
--   :id_prospect :id_device :owner_token   the lease
-- Affected rows: 1 (released) or 0.
-- The index is named because otherwise the database would read, and lock, every row of a small
-- table.
DELETE {table} FROM {table} FORCE INDEX ({session_key})
WHERE id_prospect = :id_prospect AND id_device = :id_device
    AND CAST(RIGHT(timestamp, 20) AS BINARY) = :owner_token
    AND CAST(timestamp AS BINARY) > CAST(SYSDATE(6) - INTERVAL 30 SECOND AS BINARY)
