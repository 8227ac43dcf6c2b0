-- Release several leases as release.sql does one.
--   :id_device        one device; each has its own of the lists below
--   :id_prospects     the sessions of that device
--   :owners           the same with their owner tokens, in pairs: with separate lists, a token that is
--                     used for two sessions could release the other one
-- Affected rows: how many leases were released. See all_released.sql.
DELETE {table} FROM {table} FORCE INDEX ({session_key})
WHERE (/*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)
        AND (id_prospect, CAST(RIGHT(timestamp, 20) AS BINARY)) IN (:owners)) /*end*/)
    AND CAST(timestamp AS BINARY) > CAST(SYSDATE(6) - INTERVAL 30 SECOND AS BINARY)
