-- shop_tick(t): one transaction of the shop's day; returns how many rows it wrote.
CREATE OR REPLACE FUNCTION shop_tick(t bigint, OUT inserted bigint, OUT updated bigint, OUT deleted bigint)
LANGUAGE plpgsql AS $$
DECLARE n bigint; o bigint; top bigint;
BEGIN
  inserted := 0; updated := 0; deleted := 0;
  SELECT max(id) INTO top FROM orders;
  -- a new customer, and three orders of two lines
  INSERT INTO customers (public_id, name, email, born_on, credit, preferences, letter, created_at)
  VALUES (gen_random_uuid(), 'Ny Kunde ' || t, 'new' || t || '@example.com', '2000-02-29', t % 1000 / 8.0,
          '{"language": "da"}', CASE WHEN t % 10 = 0 THEN (SELECT string_agg(md5(t || ' ' || j), ' ') FROM generate_series(1, 300) j) END,
          clock_timestamp());
  FOR i IN 1..3 LOOP
    INSERT INTO orders (customer_id, status, total, placed_at, details)
    SELECT id, 'new', t + i / 16.0, clock_timestamp(), jsonb_build_object('tick', t)
    FROM customers WHERE id >= (t * 131 + i * 17) % 8000 ORDER BY id LIMIT 1
    RETURNING id INTO o;
    INSERT INTO order_lines VALUES (o, 1, 'SKU-' || t, 1, 9.99, NULL, false, clock_timestamp()),
                                   (o, 2, 'SKU-' || t, 2, 0.01, 0.2500, true, clock_timestamp());
  END LOOP;
  inserted := 10;
  -- orders move on; prices change; customers change without touching their letter
  UPDATE orders SET status = (ARRAY['paid','packed','shipped','delivered'])[t % 4 + 1], paid = true, ship_on = current_date + (t % 9)::int
  WHERE id IN (SELECT (t * 7907 + i * 613) % top + 1 FROM generate_series(1, 20) i);
  GET DIAGNOSTICS n = ROW_COUNT; updated := updated + n;
  UPDATE order_lines SET price = price + 0.01, quantity = quantity % 9 + 1
  WHERE order_id IN (SELECT (t * 6101 + i * 419) % top + 1 FROM generate_series(1, 10) i);
  GET DIAGNOSTICS n = ROW_COUNT; updated := updated + n;
  UPDATE customers SET credit = credit - 0.75, newsletter = NOT newsletter
  WHERE id IN (SELECT (t * 40 + i * 80) % 8000 + 1 FROM generate_series(0, 4) i);
  GET DIAGNOSTICS n = ROW_COUNT; updated := updated + n;
  -- a line gets another number: the key of the row changes
  UPDATE order_lines SET line_no = line_no + 100 WHERE order_id = (t * 211) % top + 1 AND line_no = 1;
  GET DIAGNOSTICS n = ROW_COUNT; updated := updated + n;
  -- an order goes with its lines, and some single lines
  DELETE FROM order_lines WHERE order_id IN (SELECT (t * 3301 + i * 971) % top + 1 FROM generate_series(1, 2) i) AND line_no = 2;
  GET DIAGNOSTICS n = ROW_COUNT; deleted := deleted + n;
  SELECT count(*) INTO n FROM order_lines WHERE order_id = (t * 503) % top + 1;
  deleted := deleted + n;
  DELETE FROM orders WHERE id = (t * 503) % top + 1;
  GET DIAGNOSTICS n = ROW_COUNT; deleted := deleted + n;
END $$;
