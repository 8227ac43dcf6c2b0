-- Store the clock at the beginning of a packet of acquires. A lease with a lower fencing token was
-- granted before the packet; read.sql returns both.
SET @packet_clock_us = CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED)
