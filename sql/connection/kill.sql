-- End a connection that was lost during a write, so that a packet that is still in transit cannot
-- take effect after the rows were read. Fails with 1094 if the connection no longer exists.
--   :id   its number
KILL :id
