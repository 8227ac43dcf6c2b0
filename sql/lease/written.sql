-- Read the fencing token of the lease that the acquire.sql before wrote; 0 if it wrote none. Then
-- reset it, so that it is not read for the next acquire of the packet.
-- Columns: the fencing token | 0
-- The insert id in the reply to acquire.sql would not do: a trigger on the table replaces it.
SELECT LAST_INSERT_ID(), LAST_INSERT_ID(0)
