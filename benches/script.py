"""The yardstick of a snapshot: the short script that a data engineer would write."""

import subprocess, sys
import deltalake, pyarrow as pa, pyarrow.csv as csv

psql, url, out = sys.argv[1:]
types = {"amount": pa.decimal128(12, 2), **dict.fromkeys(["created_at", "updated_at"], pa.timestamp("us", "UTC"))}
copy = subprocess.Popen([psql, "-Xqc", "COPY orders TO STDOUT (FORMAT csv, HEADER)", url], stdout=subprocess.PIPE)
rows = csv.open_csv(copy.stdout, convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=True))
deltalake.write_deltalake(out, rows)
sys.exit(copy.wait())
