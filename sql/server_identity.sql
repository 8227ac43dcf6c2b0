-- Which server this is, among those that one address may lead to in the course of time, as a number.
SELECT CAST(CRC32(CONCAT_WS(' ', @@hostname, @@port, @@server_id, @@datadir)) AS UNSIGNED)
