-- The settings of every connection to the database.
--   :time_zone   a fixed offset: with daylight saving, a lock of 2 s can seem an hour old
-- Lock waits for rows, and then for whole tables, end after 1 s. This is well before the socket
-- timeout, so that a wait ends in a clean error and not in a write whose outcome is unknown. Strict
-- mode is needed because otherwise a column that is too short cuts off the owner token. ANSI_QUOTES
-- and NO_BACKSLASH_ESCAPES must be off. A COMMIT must not begin another transaction or end the
-- connection (completion_type), and no SELECT may be cut short (sql_select_limit). sql_safe_updates
-- would refuse a DELETE that deletes nothing. With this wait_timeout, an idle connection is not
-- closed by a provider's short one. Without index dives, the cost of planning a batch does not grow
-- with the table; a batch names rows by unique keys, one row per key. On MariaDB, a short
-- max_statement_time would end the wait for a row with another error. On MySQL, a short
-- max_execution_time would end reads.
SET time_zone = :time_zone,
    sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',
    autocommit = 1,
    completion_type = 0,
    sql_select_limit = 18446744073709551615,
    innodb_lock_wait_timeout = 1,
    lock_wait_timeout = 1,
    wait_timeout = 28800,
    sql_safe_updates = 0,
    eq_range_index_dive_limit = 1
    /*M! , max_statement_time = 0 */
    /*!80000 , max_execution_time = 0 */
