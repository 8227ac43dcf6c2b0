-- Delete one row if it has not changed since it was read: for a forced release, and for rows that
-- crashed holders left behind.
--   :key :stored              its primary key and its stored bytes
--   :id_prospect :id_device   the session, as it is stored
DELETE FROM {table}
WHERE {key} = :key AND CAST(timestamp AS BINARY) = :stored
    AND id_prospect = :id_prospect AND id_device = :id_device
