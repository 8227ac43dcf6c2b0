-- Which server this is, among those that one address may lead to in the course of time, as a number.
-- Whoever sets one of these while the service runs makes it take its connections from before for
-- another server's, which it never ends, until they have been replaced.
-- Columns: that number | whether SYSDATE() reads the clock when it is called (0/1): with
-- --sysdate-is-now, which no variable shows, it does not
SELECT
    CAST(CRC32(CONCAT_WS(' ', @@hostname, @@port, @@server_id, @@datadir)) AS UNSIGNED),
    IF(SLEEP(0.001) = 0, SYSDATE(6), NULL) > NOW(6)
