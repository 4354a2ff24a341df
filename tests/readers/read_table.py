#!/usr/bin/env python3
"""Reads Delta tables with one independent reader: read_table.py READER TABLE...

One JSON line a table: rows of a full read, COUNT(*) as the reader itself answers it (engines may answer it
from metadata), and a hash of the content that is the same for every reader that sees the same rows; or
{"error": ...}. Run it with the Python of the reader's own environment.

TABLE is a path, or PATH#COLUMN=NUMBER: the rows in which a decimal column has that value, which the
reader itself looks for (and may skip files and row groups by their statistics).

Content hash: every row is turned into canonical text (columns sorted by name, values normalised, see
`canon`), hashed with blake2b-128, and the row hashes are summed modulo 2^128 (a multiset hash).
"""
import hashlib
import json
import os
import sys

# ---------------------------------------------------------------- readers
# Each returns (arrow_table, count_answer). `path` is absolute; `where` is None or (column, number).


def sql_where(where, kind="DECIMAL(38,10)"):
    return "" if where is None else f""" WHERE "{where[0]}" = CAST('{where[1]}' AS {kind})"""


def picked(table, where):
    """For readers that are given no filter."""
    import decimal, pyarrow as pa, pyarrow.compute as pc
    if where is None:
        return table
    value = pa.scalar(decimal.Decimal(where[1]), pa.decimal128(38, 10))
    return table.filter(pc.equal(table.column(where[0]), value))


def r_deltalake_qb(path, where):
    import deltalake, pyarrow as pa
    dt = deltalake.DeltaTable(path)
    qb = deltalake.QueryBuilder().register("t", dt)
    t = pa.table(qb.execute("SELECT * FROM t" + sql_where(where)).read_all())
    c = pa.table(qb.execute("SELECT count(*) AS n FROM t" + sql_where(where)).read_all())["n"][0].as_py()
    return t, c, "deltalake " + deltalake.__version__


def r_deltalake_pyarrow(path, where):
    import decimal, deltalake, pyarrow as pa, pyarrow.dataset as pds
    dt = deltalake.DeltaTable(path)
    ds = dt.to_pyarrow_dataset()
    f = None
    if where is not None:
        f = pds.field(where[0]) == pa.scalar(decimal.Decimal(where[1]), pa.decimal128(38, 10))
    return ds.to_table(filter=f), ds.count_rows(filter=f), f"deltalake {deltalake.__version__} + pyarrow {pa.__version__}"


def r_datafusion(path, where):
    import datafusion, deltalake
    ctx = datafusion.SessionContext()
    dt = deltalake.DeltaTable(path)
    (ctx.register_table if hasattr(ctx, "register_table") else ctx.register_table_provider)("t", dt)
    t = ctx.sql("SELECT * FROM t" + sql_where(where)).to_arrow_table()
    c = ctx.sql("SELECT count(*) AS n FROM t" + sql_where(where)).to_arrow_table()["n"][0].as_py()
    return t, c, f"datafusion {datafusion.__version__} + deltalake {deltalake.__version__} (FFI)"


def r_kernel(path, where):
    import importlib.metadata as md
    import pyarrow as pa
    import delta_kernel_rust_sharing_wrapper as k
    from urllib.parse import quote
    url = "file://" + quote(path) + "/"
    it = k.PythonInterface(url)
    snap = k.Table(url).snapshot(it)
    b = k.ScanBuilder(snap).build().execute(it)
    t = pa.Table.from_batches(list(b), schema=b.schema)
    t = picked(t, where)
    return t, None, "delta-kernel-rs via delta-kernel-rust-sharing-wrapper " + md.version("delta-kernel-rust-sharing-wrapper")


def r_duckdb(path, where):
    import duckdb, duckdb_extensions
    con = duckdb.connect(config={"threads": os.cpu_count()})
    duckdb_extensions.import_extension("delta", con=con)
    con.execute("LOAD delta; SET TimeZone='UTC'")
    q = path.replace("'", "''")
    r = con.execute(f"SELECT * FROM delta_scan('{q}')" + sql_where(where))
    t = (r.to_arrow_table if hasattr(r, "to_arrow_table") else r.arrow)()
    c = con.execute(f"SELECT count(*) FROM delta_scan('{q}')" + sql_where(where)).fetchone()[0]
    return t, c, "duckdb " + duckdb.__version__ + " + delta extension"


def _chdb(path, where, settings):
    import chdb, pyarrow as pa
    q = path.replace("\\", "\\\\").replace("'", "\\'")
    s = sql_where(where, "Decimal(38, 10)") + f" SETTINGS session_timezone='UTC'{settings}"
    buf = chdb.query(f"SELECT * FROM deltaLakeLocal('{q}'){s}, output_format_arrow_string_as_string=0", "ArrowStream").bytes()
    t = pa.ipc.open_stream(buf).read_all() if buf else pa.table({})
    c = int(str(chdb.query(f"SELECT count() FROM deltaLakeLocal('{q}'){s}", "CSV")))
    return t, c, "chdb " + chdb.__version__ + " (ClickHouse " + str(chdb.query("SELECT version()", "TSV")).strip() + ")"


def r_chdb_kernel(path, where):
    return _chdb(path, where, ", allow_delta_kernel_rs=1, allow_experimental_delta_kernel_rs=1")


def r_chdb_legacy(path, where):
    return _chdb(path, where, ", allow_delta_kernel_rs=0, allow_experimental_delta_kernel_rs=0")


def r_polars(path, where):
    import decimal, polars as pl
    scan = pl.scan_delta(path)
    if where is not None:
        scan = scan.filter(pl.col(where[0]) == pl.lit(decimal.Decimal(where[1]), pl.Decimal(38, 10)))
    t = scan.collect().to_arrow()
    c = scan.select(pl.len()).collect().item()
    return t, c, "polars " + pl.__version__


def r_daft(path, where):
    import daft, decimal
    df = daft.read_deltalake(path)
    if where is not None:
        df = df.where(daft.col(where[0]) == daft.lit(decimal.Decimal(where[1])).cast(daft.DataType.decimal128(38, 10)))
    return df.to_arrow(), df.count_rows(), "daft " + daft.__version__


READERS = dict(
    delta_rs=r_deltalake_qb,
    pyarrow=r_deltalake_pyarrow,
    datafusion=r_datafusion,
    kernel=r_kernel,
    duckdb=r_duckdb,
    clickhouse=r_chdb_kernel,
    clickhouse_legacy=r_chdb_legacy,
    polars=r_polars,
    daft=r_daft,
)

# ---------------------------------------------------------------- canonical text
# Types are folded so that a value has one text whatever the reader's type for it:
#   int8..uint64 -> decimal digits; float32/64 -> repr of the double; decimal -> plain, no trailing zeros;
#   string and binary -> their bytes (ClickHouse has one type for both); bool -> true/false;
#   date -> YYYY-MM-DD; timestamp, with or without zone -> UTC wall clock in microseconds;
#   dictionary -> its value; map and list<struct<key,value>> -> {k:v,...} sorted by key (Polars has no map).


def canon(v):
    import datetime, decimal
    if v is None:
        return b"~"
    if isinstance(v, bool):
        return b"true" if v else b"false"
    if isinstance(v, int):
        return str(v).encode()
    if isinstance(v, float):
        return repr(v).encode()
    if isinstance(v, decimal.Decimal):
        s = format(v, "f")
        s = s.rstrip("0").rstrip(".") if "." in s else s
        return (s if s not in ("-0", "") else "0").encode()
    if isinstance(v, str):
        return b'"' + v.encode() + b'"'
    if isinstance(v, (bytes, bytearray)):
        return b'"' + bytes(v) + b'"'
    if isinstance(v, datetime.datetime):
        if v.tzinfo is not None:
            v = v.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return v.isoformat(" ", "microseconds").encode()
    if isinstance(v, datetime.date):
        return v.isoformat().encode()
    if isinstance(v, dict):
        return b"{" + b",".join(k.encode() + b"=" + canon(x) for k, x in sorted(v.items())) + b"}"
    if isinstance(v, (list, tuple)):
        if v and all(isinstance(x, tuple) and len(x) == 2 for x in v):
            return b"map" + b",".join(sorted(canon(k) + b":" + canon(x) for k, x in v))
        if v and all(isinstance(x, dict) and set(x) == {"key", "value"} for x in v):
            return b"map" + b",".join(sorted(canon(x["key"]) + b":" + canon(x["value"]) for x in v))
        return b"[" + b",".join(canon(x) for x in v) + b"]"
    return repr(v).encode()


def canon_column(col):
    """Arrow ChunkedArray -> list of canonical bytes. Vectorised for flat types, canon() for the rest."""
    import pyarrow as pa, pyarrow.compute as pc
    ty = col.type
    if pa.types.is_dictionary(ty):
        col = col.cast(ty.value_type)
        ty = col.type
    if pa.types.is_timestamp(ty):
        col = col.cast(pa.timestamp("us", ty.tz), safe=False)
        s = pc.cast(col.cast(pa.timestamp("us")) if ty.tz is None else col.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).cast(pa.timestamp("us")), pa.string())
        return [b"~" if x is None else x.encode() for x in s.to_pylist()]
    if pa.types.is_integer(ty) or pa.types.is_date(ty):
        return [b"~" if x is None else x.encode() for x in pc.cast(col, pa.string()).to_pylist()]
    if pa.types.is_float32(ty):
        col = col.cast(pa.float64())
    return [canon(x) for x in col.to_pylist()]


def digest(table):
    names = sorted(table.column_names)
    columns = [canon_column(table.column(n)) for n in names]
    prefixes = [n.encode() + b"=" for n in names]
    total = 0
    for values in zip(*columns):
        row = b"\x1f".join(map(bytes.__add__, prefixes, values))
        total += int.from_bytes(hashlib.blake2b(row, digest_size=16).digest(), "little")
    return {"rows": table.num_rows, "hash": format(total % (1 << 128), "032x"),
            "schema": {n: str(table.schema.field(n).type) for n in names}}


def main():
    name, paths = sys.argv[1], sys.argv[2:]
    for path in paths:
        try:
            path, _, where = path.partition("#")
            where = tuple(where.split("=", 1)) if where else None
            table, count, version = READERS[name](os.path.abspath(path), where)
            result = digest(table) | {"count": count, "version": version}
        except BaseException as e:  # also PanicException of pyo3, which is no Exception
            result = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(result), flush=True)
    os._exit(0)  # some engines hang in their shutdown


if __name__ == "__main__":
    main()
