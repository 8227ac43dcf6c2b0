-- The settings of every connection to the database.
--   :time_zone   a fixed offset: with daylight saving, a lock of 2 s can seem an hour old
-- Lock waits end after 1 s (for rows, then for whole tables), well before the socket timeout, so
-- that a wait ends in a clean error and not in a write whose outcome is unknown. Strict mode,
-- because otherwise a column that is too short cuts off the owner token. No ANSI_QUOTES, no
-- NO_BACKSLASH_ESCAPES. A COMMIT must not begin another transaction or end the connection
-- (completion_type), and no SELECT may be cut short. sql_safe_updates would refuse a DELETE that
-- deletes nothing. An idle connection outlives a provider's short wait_timeout. Without index
-- dives, planning a batch costs nothing that grows with the table; a batch names rows by unique
-- keys, one row per key.
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
