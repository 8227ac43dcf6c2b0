-- Make information_schema show the current AUTO_INCREMENT counter: MySQL 8.0 otherwise shows one that
-- may be 24 h old. MariaDB has no such variable and needs none; it skips the comment, and the user
-- variable only completes the statement there.
SET @unused = TRUE /*!80000 , information_schema_stats_expiry = 0 */
