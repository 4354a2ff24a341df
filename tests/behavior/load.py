"""Writes a Delta table as somebody's first load would: load.py PLAN

PLAN is JSON: {"url", "columns": [[name, type]], "rows": [[value]]}, with the names of pyarrow's types.
"""

import json
import sys

import pyarrow as pa
from deltalake import write_deltalake

plan = json.loads(sys.argv[1])
schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in plan["columns"]])
rows = [dict(zip(schema.names, row)) for row in plan["rows"]]
write_deltalake(plan["url"], pa.Table.from_pylist(rows, schema))
