-- Fail, with 1690, unless the statement before changed all the rows that it named. A count alone
-- would not tell which one had changed; so nothing is committed, and the rows are looked at.
--   :rows   how many it named
SELECT ~0 + (ROW_COUNT() <> :rows)
