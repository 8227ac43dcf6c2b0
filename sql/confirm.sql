-- Make a lease firm: nobody takes it back from now on. A compare-and-swap on the stored bytes.
--   :key    the seen row's primary key
--   :seen   the stored bytes that were seen
--   :firm   the same, with 1 as the last digit of the date's fraction
UPDATE {table} SET timestamp = :firm
WHERE {key} = :key AND CAST(timestamp AS BINARY) = :seen
