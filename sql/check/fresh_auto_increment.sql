-- Make information_schema show the current AUTO_INCREMENT counter: by default, MySQL 8.0 shows one
-- that may be 24 h old. MariaDB has no such variable and needs none: it skips the comment, and the
-- user variable only completes the statement.
SET @unused = TRUE /*!80000 , information_schema_stats_expiry = 0 */
