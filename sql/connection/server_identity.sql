-- Identify the server, because one address may lead to different servers over time.
-- Do not change these variables while the service runs: it would take its older connections for
-- another server's and never end them until they are replaced.
-- Columns: the identity, as a number | the connection's number here, which is not that of the
-- handshake if a proxy is in between | whether SYSDATE() reads the clock when it is called (0/1):
-- with --sysdate-is-now it does not, and no variable shows that.
-- BENCHMARK only lets time pass. SLEEP would, too, but MariaDB takes two seconds to end a connection
-- that is killed during it, and sends nothing until then.
SELECT
    CAST(CRC32(CONCAT_WS(' ', @@hostname, @@port, @@server_id, @@datadir)) AS UNSIGNED),
    CONNECTION_ID(),
    IF(BENCHMARK(1000, RAND()) = 0, SYSDATE(6), NULL) > NOW(6)
