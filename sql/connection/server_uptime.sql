-- How long the server has been running: a connection that is older was to another life of it.
-- Columns: name | seconds
SHOW GLOBAL STATUS LIKE 'Uptime'
