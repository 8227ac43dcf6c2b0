-- Allow a row to have the id 0, which does not raise the AUTO_INCREMENT counter.
SET sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO'
