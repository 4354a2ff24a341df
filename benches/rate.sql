-- A steady rate of changes: twenty transactions a second of :rate / 20 updates of one row each, spread over all
-- :n rows, for :secs seconds; updated_at is the time of the statement.
-- psql -v n=5000000 -v rate=1000 -v secs=60 -f rate.sql
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS w;
CREATE OR REPLACE PROCEDURE w.rate(n bigint, rate int, secs int) LANGUAGE plpgsql AS $$
DECLARE
  began timestamptz := clock_timestamp();
  k bigint := 0;
  early float8;
BEGIN
  FOR tick IN 1..secs * 20 LOOP
    FOR j IN 1..rate / 20 LOOP
      k := k + 1;
      UPDATE public.orders SET amount = amount + 0.01, updated_at = clock_timestamp()
       WHERE id = (hashint8extended(k, 99) & 9223372036854775807) % n + 1;
    END LOOP;
    COMMIT;
    early := extract(epoch FROM began + tick * interval '50 ms' - clock_timestamp());
    IF early > 0 THEN
      PERFORM pg_sleep(early);
    END IF;
  END LOOP;
END $$;
SET synchronous_commit = on;
CALL w.rate(:n, :rate, :secs);
