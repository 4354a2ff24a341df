-- What the owner of a database gives Lakeward: a login that may replicate and read, and the
-- publication of the tables. The password comes from the environment.
\getenv password SHOP_PASSWORD
CREATE ROLE lakeward LOGIN REPLICATION PASSWORD :'password';
GRANT USAGE ON SCHEMA public TO lakeward;
GRANT SELECT ON customers, orders, order_lines TO lakeward;
CREATE PUBLICATION lakeward_shop FOR TABLE customers, orders, order_lines;
