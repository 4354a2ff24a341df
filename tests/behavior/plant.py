"""Changes a Delta table behind Lakeward's back, as another writer may: plant.py PLAN

PLAN is JSON: {"url", "key", "missing": [id], "extra": [id], "changed": {column: [id]}}. Rows go, rows
come that are like the row of id 1, and single values become others, as little as their type lets them.
"""

import datetime
import decimal
import json
import math
import struct
import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return math.nextafter(value, math.inf)
    if isinstance(value, str):
        return value + " "
    if isinstance(value, bytes):
        return value + b"\0"
    if isinstance(value, decimal.Decimal):
        return value + decimal.Decimal(1).scaleb(value.as_tuple().exponent)
    if isinstance(value, datetime.datetime):
        return value + datetime.timedelta(microseconds=1)
    if isinstance(value, datetime.date):
        return value + datetime.timedelta(days=1)
    if isinstance(value, list):
        return value + [None]
    raise TypeError(type(value))


def next_float32(value):
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    return struct.unpack("<f", struct.pack("<i", bits + 1))[0]


def main():
    decimal.getcontext().prec = 76
    plan = json.loads(sys.argv[1])
    table = DeltaTable(plan["url"])
    data = table.to_pyarrow_table()
    key = plan["key"]
    rows = {row[key]: row for row in data.to_pylist()}
    come = [dict(rows[1], **{key: id}) for id in plan["extra"]]
    for column, ids in plan["changed"].items():
        for id in ids:
            row = dict(rows[id])
            if data.schema.field(column).type == pa.float32():
                row[column] = next_float32(row[column])
            else:
                row[column] = other(row[column])
            come.append(row)
    gone = plan["missing"] + [id for ids in plan["changed"].values() for id in ids]
    table.delete("%s in (%s)" % (key, ", ".join(map(str, gone))))
    write_deltalake(table, pa.Table.from_pylist(come, data.schema), mode="append")


main()
