-- What visitors of the shop's web pages did: the MySQL of docker-compose.yml. Customers are those
-- of the Postgres beside it. Deterministic: no random numbers, no present time.
CREATE DATABASE web CHARACTER SET utf8mb4;
USE web;
CREATE TABLE visits (
  id          bigint unsigned PRIMARY KEY AUTO_INCREMENT,
  customer_id bigint NOT NULL,
  page        varchar(200) NOT NULL,
  device      enum('phone','tablet','desktop') NOT NULL,
  seconds     decimal(8,2) NOT NULL,
  seen_at     timestamp(3) NOT NULL,
  details     json,
  KEY (customer_id)
);
SET SESSION cte_max_recursion_depth = 20000;
INSERT INTO visits (customer_id, page, device, seconds, seen_at, details)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
SELECT 1 + i % 8000, CONCAT('/products/', i % 700), 1 + i % 3, i % 90000 / 100,
       TIMESTAMP '2026-01-01 00:00:00' + INTERVAL i MINUTE, JSON_OBJECT('step', i % 5, 'new', i % 7 = 0)
FROM n;
-- What the owner of a server gives Lakeward.
CREATE USER lakeward IDENTIFIED BY 'web';
GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO lakeward;
