-- Fail, with 1690, unless the statement before changed all the rows that it named: nobody commits
-- then, and the rows are looked at. A count alone would not tell which one had changed.
--   :rows   how many it named
SELECT ~0 + (ROW_COUNT() <> :rows)
