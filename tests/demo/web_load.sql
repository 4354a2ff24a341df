-- web_tick(t): one transaction of the visitors' day; answers how many rows it wrote.
USE web;
DELIMITER $$
CREATE PROCEDURE web_tick(t bigint)
BEGIN
  DECLARE inserted, updated, deleted bigint DEFAULT 0;
  DECLARE top bigint;
  START TRANSACTION;
  SELECT MAX(id) INTO top FROM visits;
  -- two visits begin
  INSERT INTO visits (customer_id, page, device, seconds, seen_at, details)
  VALUES (1 + t * 131 % 8000, CONCAT('/products/', t % 700), 'phone', 0, NOW(3), JSON_OBJECT('step', 0, 'new', true)),
         (1 + t * 613 % 8000, '/søg?q="sko, str. 42"', 'desktop', 0.01, NOW(3), NULL);
  SET inserted = ROW_COUNT();
  -- others go on, and one turns out to be somebody else's
  UPDATE visits SET seconds = seconds + 1.25, details = JSON_SET(details, '$.step', t % 7)
  WHERE id IN (t * 7907 % top + 1, t * 6101 % top + 1, t * 419 % top + 1, t * 971 % top + 1, top - 3);
  SET updated = ROW_COUNT();
  UPDATE visits SET customer_id = 1 + t % 8000, device = 'tablet' WHERE id = t * 211 % top + 1;
  SET updated = updated + ROW_COUNT();
  -- and some are forgotten
  DELETE FROM visits WHERE id IN (t * 503 % top + 1, t * 3301 % top + 1);
  SET deleted = ROW_COUNT();
  COMMIT;
  SELECT inserted, updated, deleted;
END$$
