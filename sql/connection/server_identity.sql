-- Identify the server, because one address may lead to different servers over time.
-- Do not change these variables while the service runs: the service would treat its older
-- connections as those of another server, and could not end lost ones until they are replaced.
-- Columns: the identity, as a number | the connection's number at this server, which differs from
-- the number in the handshake if there is a proxy | whether SYSDATE() reads the clock when it is
-- called (0/1): with --sysdate-is-now it does not, and no variable shows that.
-- BENCHMARK only lets time pass. SLEEP would do so too, but MariaDB takes two seconds to end a
-- connection that is killed during SLEEP, and sends nothing until then.
SELECT
    CAST(CRC32(CONCAT_WS(' ', @@hostname, @@port, @@server_id, @@datadir)) AS UNSIGNED),
    CONNECTION_ID(),
    IF(BENCHMARK(1000, RAND()) = 0, SYSDATE(6), NULL) > NOW(6)
