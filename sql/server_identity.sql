-- Which server this is, among those that one address may lead to in the course of time, as a number.
-- Whoever sets one of these while the service runs makes it take its connections from before for
-- another server's, which it never ends, until they have been replaced.
-- Columns: that number | how far one AUTO_INCREMENT id is from the next one
SELECT
    CAST(CRC32(CONCAT_WS(' ', @@hostname, @@port, @@server_id, @@datadir)) AS UNSIGNED),
    @@auto_increment_increment
