"""The yardstick of a snapshot of MySQL: the short script that a data engineer would write."""

import sys

import connectorx
import deltalake

url, out = sys.argv[1:]
rows = connectorx.read_sql(url, "SELECT * FROM orders", return_type="arrow")
deltalake.write_deltalake(out, rows)
