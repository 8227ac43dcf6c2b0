-- Show the AUTO_INCREMENT counter as it is, not as it was up to 24 h ago. Only MySQL from 8.0 on reads
-- what is in the comment; MariaDB has no such variable, and needs none.
SET @stats_now = TRUE /*!80000 , information_schema_stats_expiry = 0 */
