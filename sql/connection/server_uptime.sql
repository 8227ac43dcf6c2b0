-- How long the server has been running. A connection that is older was lost when the server
-- restarted.
-- Columns: name | seconds
SHOW GLOBAL STATUS LIKE 'Uptime'
