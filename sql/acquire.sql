-- Claim sessions: write a claim over what a look saw, or change nothing: a compare-and-swap on the
-- stored bytes. A claim is a lease without a date, which holds nothing; date.sql makes it one, in
-- the same transaction, before anybody sees it.
--   :key                      NULL for the counter's next id; the seen rows' keys to replace them, and
--                             those of rows that are gone for new ones, which burns no id, written or
--                             not, and works when there are none left. Not both in one statement:
--                             each of its rows would burn an id
--   :id_prospect :id_device   the session
--   :seen                     the stored bytes that were seen, NULL if there was no row
--   :claim                    62 characters: 1970 in place of a date, and the owner token
-- Affected rows are 1 (new), 2 (replaced), 0 (not written), summed up: they do not tell whose claims
-- were written. date.sql does, or look.sql in the same transaction.
-- The guard names the session as well: with no ids left, MySQL lets the generated id collide with
-- the row of the highest id, and would overwrite that one, whoever holds it.
INSERT INTO {table} ({key}, id_prospect, id_device, timestamp)
VALUES /*each ,*/ (:key, :id_prospect, :id_device, :claim)/*end*/
ON DUPLICATE KEY UPDATE timestamp = CASE WHEN FALSE THEN timestamp /*each-with seen*/
    WHEN id_prospect = :id_prospect AND id_device = :id_device AND CAST(timestamp AS BINARY) = :seen THEN :claim
    /*end*/ ELSE timestamp END
