-- Fail with 1690 unless the previous statement deleted all the rows that it named. A count alone
-- does not show which row was missing. So nothing is committed, and each release is sent again with
-- its own statement and count.
--   :rows   how many rows that statement named
SELECT ~0 + (ROW_COUNT() <> :rows)
