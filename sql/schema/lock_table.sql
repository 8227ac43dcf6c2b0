-- Create the lock table as it is in production. An existing table is not changed.
CREATE TABLE IF NOT EXISTS {table} (
    id_sessionX INT(11) NOT NULL AUTO_INCREMENT PRIMARY KEY,
    id_prospect VARCHAR(255) NOT NULL,
    id_device VARCHAR(255) NOT NULL,
    timestamp VARCHAR(255) NOT NULL,
    UNIQUE KEY uniq_session (id_prospect, id_device)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
