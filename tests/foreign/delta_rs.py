"""Maintains and changes Delta tables by delta-rs, as somebody else's job would beside Lakeward.

One JSON object a line on stdin, {"do": WHAT, "url": TABLE, ...}; one answer a line on stdout: an object with
"version", the table's afterwards, and what WHAT tells, or {"refused": TEXT, "kind": EXCEPTION}.

With "stale" it goes on with the table as "hold" has opened it, whatever was committed since. Values come and go
as text, numbers exactly: floats by their bits, decimals without their point, days and microseconds since 1970,
bytes in hexadecimal, lists as JSON.
"""

import decimal
import json
import os
import sys

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake

BITS = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}
NOW = {"retention_hours": 0, "enforce_retention_duration": False}

decimal.getcontext().prec = 76


def texts(array):
    """An array's values as texts."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    type = array.type
    if pa.types.is_boolean(type):
        return [None if value is None else str(value).lower() for value in array.to_pylist()]
    if type in BITS:
        array = array.view(BITS[type])
    elif pa.types.is_date32(type):
        array = array.cast(pa.int32())
    elif pa.types.is_timestamp(type):
        if type.unit != "us" or type.tz not in (None, "UTC"):
            raise TypeError(str(type))
        array = array.cast(pa.int64())
    elif pa.types.is_decimal(type):
        return [None if value is None else str(int(value.scaleb(type.scale))) for value in array.to_pylist()]
    elif pa.types.is_list(type) or pa.types.is_large_list(type):
        lists = (None if not item.is_valid else texts(item.values) for item in array)
        return [None if item is None else json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in lists]
    values = array.to_pylist()
    if values and any(isinstance(value, bytes) for value in values):
        return [None if value is None else value.hex() for value in values]
    return [None if value is None else str(value) for value in values]


def array(values, type):
    """The array of values that `texts` gives for it."""
    if pa.types.is_boolean(type):
        return pa.array([None if value is None else value == "true" for value in values], type)
    if pa.types.is_integer(type):
        return pa.array([None if value is None else int(value) for value in values], type)
    if type in BITS:
        return array(values, BITS[type]).view(type)
    if pa.types.is_date32(type):
        return array(values, pa.int32()).cast(type)
    if pa.types.is_timestamp(type):
        return array(values, pa.int64()).cast(type)
    if pa.types.is_decimal(type):
        whole = [None if value is None else decimal.Decimal(int(value)) for value in values]
        return pa.array([None if value is None else value.scaleb(-type.scale) for value in whole], type)
    if pa.types.is_list(type):
        lists = [None if value is None else json.loads(value) for value in values]
        items = array([item for value in lists for item in value or []], type.value_type)
        offsets, end = [], 0
        for value in lists:
            offsets.append(None if value is None else end)
            end += len(value or [])
        return pa.ListArray.from_arrays(pa.array(offsets + [end], pa.int32()), items, type=type)
    if pa.types.is_binary(type):
        return pa.array([None if value is None else bytes.fromhex(value) for value in values], type)
    return pa.array(values, type)


def read(table, ask):
    """All rows, with the columns in the order of the table's schema."""
    query = QueryBuilder().register("t", table)
    rows = pa.table(query.execute("select * from t").read_all())
    fields = json.loads(table.schema().to_json())["fields"]
    columns = [texts(rows.column(field["name"])) for field in fields]
    return {"columns": [[field["name"], field["type"]] for field in fields], "rows": list(zip(*columns))}


def append(table, ask):
    schema = pa.schema(table.schema().to_arrow())
    columns = zip(*ask["rows"])
    data = [array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    write_deltalake(table, pa.Table.from_arrays(data, schema=schema), mode="append")
    return {}


def vacuum(table, ask):
    retention = NOW if ask["now"] else {}
    return {"count": len(table.vacuum(dry_run=False, full=ask["full"], **retention))}


def compact_log(table, ask):
    """The log's last commits, as far as they are there, once more in one file."""
    names = os.listdir(os.path.join(ask["url"], "_delta_log"))
    kept = {int(name[:20]) for name in names if name[20:] == ".json"}
    last = table.version()
    first = min(version for version in kept if kept.issuperset(range(version, last)))
    if first < last:
        table.compact_logs(first, last)
    return {"count": max(last - first, 0)}


DOES = {
    "hold": lambda table, ask: {},
    "read": read,
    "append": append,
    "optimize": lambda table, ask: {"count": table.optimize.compact()["numFilesRemoved"]},
    "z-order": lambda table, ask: {"count": table.optimize.z_order([ask["by"]])["numFilesRemoved"]},
    "vacuum": vacuum,
    "delete": lambda table, ask: {"count": table.delete(ask["where"])["num_deleted_rows"]},
    "update": lambda table, ask: {"count": table.update(ask["set"], predicate=ask["where"])["num_updated_rows"]},
    "set": lambda table, ask: table.alter.set_table_properties(ask["properties"], raise_if_not_exists=False) or {},
    "describe": lambda table, ask: table.alter.set_table_description(ask["text"]) or {},
    "compact log": compact_log,
    "checkpoint": lambda table, ask: table.create_checkpoint() or {},
    "clean up": lambda table, ask: table.cleanup_metadata() or {},
}


def main():
    held = None
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            table = held if ask.get("stale") else DeltaTable(ask["url"])
            answer = DOES[ask["do"]](table, ask)
            if ask["do"] == "hold":
                held = table
            answer["version"] = DeltaTable(ask["url"]).version()
        except Exception as error:
            answer = {"refused": str(error), "kind": type(error).__name__}
        print(json.dumps(answer), flush=True)


main()
