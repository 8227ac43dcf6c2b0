-- What every connection to the database runs with.
--   :time_zone   a fixed offset: a zone with daylight saving makes a 2 s old lock read an hour old
-- Lock waits end after 1 s (rows, then whole tables), well before the socket gives up, so that a
-- wait ends in a clean error instead of a write that nobody hears of. Strict mode, because without
-- it a column that is too short cuts the owner token off. No ANSI_QUOTES, no NO_BACKSLASH_ESCAPES.
-- A COMMIT must not begin another transaction or end the connection (completion_type), nor a SELECT
-- be cut. sql_safe_updates would refuse a DELETE that deletes nothing. An idle connection outlives a
-- provider's short wait_timeout. Without index dives, planning a batch costs nothing that grows with
-- the table: it names rows by unique keys, one row each.
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
