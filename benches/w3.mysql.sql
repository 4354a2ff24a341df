-- W3's like: u random single-row UPDATEs, then d DELETEs, then i INSERTs; 100 changes a transaction.
-- Says how many rows were changed.
SET SESSION sql_log_bin = 0;
DELIMITER $$
DROP PROCEDURE IF EXISTS w3$$
CREATE PROCEDURE w3(n bigint, u int, d int, i int, seed int)
BEGIN
  DECLARE j, top, changes bigint DEFAULT 0;
  SET autocommit = 0;
  WHILE j < u DO
    SET j = j + 1;
    UPDATE orders
    SET status = ELT(j % 6 + 1, 'new', 'paid', 'packed', 'shipped', 'delivered', 'returned'), amount = amount + 1.25,
        updated_at = NOW(6), attrs = JSON_SET(attrs, '$.items', j % 16)
    WHERE id = CAST(CONV(SUBSTR(SHA2(CONCAT(j, ' ', seed), 256), 1, 12), 16, 10) AS UNSIGNED) % n + 1;
    SET changes = changes + ROW_COUNT();
    IF j % 100 = 0 THEN COMMIT; END IF;
  END WHILE;
  COMMIT;
  SET j = 0;
  WHILE j < d DO
    SET j = j + 1;
    DELETE FROM orders WHERE id = j * (n DIV d) - (j + seed) % (n DIV d);
    SET changes = changes + ROW_COUNT();
    IF j % 100 = 0 THEN COMMIT; END IF;
  END WHILE;
  COMMIT;
  SELECT MAX(id) INTO top FROM orders;
  SET j = 0;
  WHILE j < i DO
    SET j = j + 1;
    INSERT INTO orders VALUES (top + j, j % 262144, 'new', j % 100000 / 100, CONCAT('inserted by w3 ', SUBSTR(SHA2(j, 256), 1, 32)), NOW(6), NOW(6),
      JSON_OBJECT('channel', 'web', 'items', j % 16, 'gift', false, 'coupon', SUBSTR(SHA2(j, 256), 1, 10), 'w', 1.25));
    SET changes = changes + ROW_COUNT();
    IF j % 100 = 0 THEN COMMIT; END IF;
  END WHILE;
  COMMIT;
  SELECT changes;
END$$
