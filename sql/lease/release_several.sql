-- Release several leases, each like release.sql.
--   :id_device      one device; repeated for each device, with its own lists
--   :id_prospects   the sessions of that device
--   :owners         the same sessions, each in a pair with its owner token: with separate lists, a
--                   token that is used for two sessions could release the wrong one
-- Affected rows: how many leases were released. See all_released.sql.
DELETE {table} FROM {table} FORCE INDEX ({session_key})
WHERE (/*each OR*/ (id_device = :id_device AND id_prospect IN (:id_prospects)
        AND (id_prospect, CAST(RIGHT(timestamp, 20) AS BINARY)) IN (:owners)) /*end*/)
    AND CAST(timestamp AS BINARY) > CAST(SYSDATE(6) - INTERVAL 30 SECOND AS BINARY)
