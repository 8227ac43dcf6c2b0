-- Fail with 1690 unless the previous statement deleted all the rows that it named. A count alone
-- would not tell which row was not found. So nothing is committed, and each release is sent again
-- with a statement and a count of its own.
--   :rows   how many rows it named
SELECT ~0 + (ROW_COUNT() <> :rows)
