-- Fail, with 1690, unless the statement before deleted all the rows that it named. A count alone
-- would not tell which one it did not find; so nothing is committed, and each release gets a statement
-- and a count of its own.
--   :rows   how many it named
SELECT ~0 + (ROW_COUNT() <> :rows)
