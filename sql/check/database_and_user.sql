-- Where and who we are to the server, as a GRANT spells it.
SELECT CONCAT('`', REPLACE(DATABASE(), '`', '``'), '`'), CONCAT(
    QUOTE(LEFT(CURRENT_USER(), CHAR_LENGTH(CURRENT_USER()) - LOCATE('@', REVERSE(CURRENT_USER())))),
    '@',
    QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)))
