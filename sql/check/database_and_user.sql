-- The database and the user of this connection, quoted as a GRANT statement needs them.
-- Columns: database | user
SELECT CONCAT('`', REPLACE(DATABASE(), '`', '``'), '`'), CONCAT(
    QUOTE(LEFT(CURRENT_USER(), CHAR_LENGTH(CURRENT_USER()) - LOCATE('@', REVERSE(CURRENT_USER())))),
    '@',
    QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)))
