-- Settings that decide whether leases can be written and whether they survive a crash. A server
-- returns only the variables that it has: those of Group Replication exist only with its plugin.
-- Columns: name | value
SHOW GLOBAL VARIABLES WHERE variable_name IN (
    'binlog_format', 'log_bin', 'innodb_flush_log_at_trx_commit', 'sync_binlog',
    'group_replication_consistency', 'max_allowed_packet')
