-- MySQL only: show the AUTO_INCREMENT counter as it is, not as it was up to 24 h ago.
SET information_schema_stats_expiry = 0
