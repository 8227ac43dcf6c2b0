-- Make the server show the current tables in full. By default, information_schema of MySQL 8.0
-- shows an AUTO_INCREMENT counter that may be 24 h old, and a server can be configured to hide
-- primary keys that it generated. MariaDB has neither setting and skips the comments. SHOW CREATE
-- TABLE must quote names, because session-lock searches for quoted names. The columns of a key must
-- not be cut short (group_concat_max_len).
SET sql_quote_show_create = 1,
    group_concat_max_len = 65536
    /*!80000 , information_schema_stats_expiry = 0 */
    /*!80030 , show_gipk_in_create_table_and_information_schema = ON */
