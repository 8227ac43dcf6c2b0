-- End a connection that was lost during a write, so that a packet that is still on its way cannot
-- take effect after the rows were read. Fails with 1094 once the connection is gone.
--   :id   its number
KILL :id
