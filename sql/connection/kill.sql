-- End a connection that was lost in the middle of a write, so that a packet which is still on its
-- way cannot be carried out after we looked. Fails with 1094 once the connection is gone.
--   :id   its number
KILL :id
