-- Allow a row to have the id 0, which no other row has and which does not raise the AUTO_INCREMENT
-- counter.
SET @sql_mode = @@sql_mode, sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')
