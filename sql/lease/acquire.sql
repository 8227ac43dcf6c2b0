-- Acquire sessions. For each session, insert a claim and date it, or replace a row that was stale
-- when it was read.
--   :key                      the id of a new row, drawn by session-lock, so that no request uses
--                             up an AUTO_INCREMENT id; or the id of the stale row
--   :id_prospect :id_device   the session
--   :claim                    62 characters: :mark, the ttl in milliseconds as 7 digits, and the
--                             owner token. Its date is in 2000, so it holds nothing
--   :mark                     the first 35 characters of all claims of this process. No other
--                             program writes them, and no claim exists after this statement
--   :stored                   the stored bytes of the stale row; NULL for a new row
--   :shift_us :fencing_floor :owner_token   for the lease that replaces a stale row: ttl - 30 s, in
--                             microseconds, rounded up to whole seconds by adding 999999; the
--                             lowest fencing token that it may have
-- Every row is in VALUES twice: the first one inserts the claim, and the second one finds the claim
-- and dates it. In ON DUPLICATE KEY UPDATE, SYSDATE(6) is read after the wait for the row's lock.
-- In VALUES, it would be read before a wait for another server's insert or delete of the session's
-- row, and the fencing tokens of a session could decrease.
-- The guards name the session or its claim: if another session's row has the id, nothing changes.
-- An acquire without a message, alone in its batch, is first sent without a transaction. If its row
-- was inserted (1) and dated (2), and only then, there are 3 affected rows, and they are the answer.
-- Otherwise the rows are read back with read.sql in the same transaction. An acquire with a caller's
-- token or a message then has a statement of its own, after which written.sql reads LAST_INSERT_ID():
-- the fencing token of the lease, if one was written. So the acquire knows whether the lease in its
-- row is the one that it wrote. The count does not show this: a proxy may have rows counted that do
-- not change, each as 1.
INSERT INTO {table} ({key}, id_prospect, id_device, timestamp)
VALUES /*each ,*/ (:key, :id_prospect, :id_device, :claim)/*end*/,
    /*each ,*/ (:key, :id_prospect, :id_device, :claim)/*end*/
ON DUPLICATE KEY UPDATE timestamp = CASE
    WHEN LEFT(timestamp, 35) = :mark THEN CONCAT(
        LEFT(SYSDATE(6) + INTERVAL (CAST(SUBSTRING(timestamp, 36, 7) AS SIGNED) * 1000 - 30000000 + 999999) MICROSECOND, 19),
        '.000000',
        LAST_INSERT_ID(CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED)),
        RIGHT(timestamp, 20))
    /*each-with stored*/
    WHEN id_prospect = :id_prospect AND id_device = :id_device AND CAST(timestamp AS BINARY) = :stored THEN CONCAT(
        LEFT(SYSDATE(6) + INTERVAL :shift_us MICROSECOND, 19),
        '.000000',
        LAST_INSERT_ID(GREATEST(CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED), :fencing_floor)),
        :owner_token)
    /*end*/
    ELSE timestamp END
