-- Remember the clock at which a packet of acquires begins. A lease with a lower fencing token was
-- granted before; release_answered.sql and read.sql compare.
SET @packet_clock_us = CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED)
