-- W1's like: the snapshot workload of MySQL. SET @n first. Deterministic: pseudo-random values come
-- from SHA2(id, 256), so every run makes the same rows. The rows are not logged: nobody follows yet.
SET SESSION sql_log_bin = 0, SESSION time_zone = '+00:00', SESSION unique_checks = 0;
DROP TABLE IF EXISTS orders;
CREATE TABLE orders (
  id          bigint PRIMARY KEY,
  customer_id int           NOT NULL,
  status      varchar(20)   NOT NULL,
  amount      decimal(12,2) NOT NULL,
  note        varchar(100),
  created_at  timestamp(6)  NOT NULL,
  updated_at  timestamp(6)  NOT NULL,
  attrs       json          NOT NULL
);
DROP TABLE IF EXISTS digits;
CREATE TABLE digits (n int PRIMARY KEY);
INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
DELIMITER $$
DROP PROCEDURE IF EXISTS w1$$
CREATE PROCEDURE w1(n bigint)
BEGIN
  DECLARE base bigint DEFAULT 0;
  WHILE base < n DO
    INSERT INTO orders
    SELECT id, h1 % 262144 + 1,
           ELT(h1 DIV 1048576 % 6 + 1, 'new', 'paid', 'packed', 'shipped', 'delivered', 'returned'),
           h2 % 100000000 / 100,
           IF(id % 50 = 0, NULL, CONCAT('order ', id, ' ', SUBSTR(hash, 1, 26))),
           TIMESTAMP '2024-01-01 00:00:00' + INTERVAL h3 % 50000000 SECOND + INTERVAL h1 % 1000000 MICROSECOND,
           TIMESTAMP '2025-08-01 00:00:00' + INTERVAL h2 % 8388608 SECOND,
           JSON_OBJECT('channel', ELT(h2 DIV 64 % 4 + 1, 'web', 'app', 'store', 'phone'), 'items', h2 DIV 256 % 16 + 1,
                       'gift', h2 DIV 4096 % 2 = 1, 'coupon', SUBSTR(hash, 20, 10), 'w', h3 % 65536 / 100)
    FROM (SELECT id, SHA2(id, 256) hash, CONV(SUBSTR(SHA2(id, 256), 1, 12), 16, 10) + 0 h1, CONV(SUBSTR(SHA2(id, 256), 9, 12), 16, 10) + 0 h2,
                 CONV(SUBSTR(SHA2(id, 256), 17, 12), 16, 10) + 0 h3
          FROM (SELECT base + 1 + a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n id
                FROM digits a, digits b, digits c, digits d, digits e) ids WHERE id <= n) g;
    SET base = base + 100000;
  END WHILE;
END$$
DELIMITER ;
CALL w1(@n);
DROP TABLE digits;
ANALYZE TABLE orders;
