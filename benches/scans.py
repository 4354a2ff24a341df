"""How fast a table is read beside the same rows in a table that delta-rs has just written.

    scans.py copy TABLE COPY                  in the environment of deltalake
    scans.py duckdb|polars TABLE COPY KEY...  in that of the engine

Prints JSON. The copy is in the order of the key, as a new table would be. Each reading opens its table anew.
A reading of all adds up every column, so that no statistics can answer it; sums must be the same on both sides.
"""

import json
import os
import sys
import time

# The readings of each table, in turns.
TURNS = 5


def copy(table, out):
    import deltalake

    rows = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(table)).execute("SELECT * FROM t ORDER BY id")
    deltalake.write_deltalake(out, rows)
    written = deltalake.DeltaTable(out)
    adds = written.get_add_actions(flatten=True)
    return {"files": len(written.file_uris()), "bytes": sum(adds.column("size_bytes").to_pylist())}


class DuckDb:
    """Each reading has a database of its own: nothing is remembered."""

    def __init__(self):
        import duckdb
        import duckdb_extensions

        self.duckdb, self.extensions = duckdb, duckdb_extensions
        duckdb_extensions.import_extension("delta")

    def timed(self, table, sql):
        con = self.duckdb.connect(config={"threads": os.cpu_count()})
        con.execute("LOAD delta; SET TimeZone = 'UTC'")
        began = time.monotonic()
        found = con.execute(sql.format(f"delta_scan('{table}')")).fetchall()
        return time.monotonic() - began, found

    def everything(self, table):
        con = self.duckdb.connect()
        con.execute("LOAD delta")
        sums = {"VARCHAR": "sum(strlen({}))", "TIMESTAMP WITH TIME ZONE": "sum(epoch_us({}))"}
        columns = con.execute(f"DESCRIBE SELECT * FROM delta_scan('{table}')").fetchall()
        wanted = ", ".join(sums.get(kind, "sum({})").format(f'"{name}"') for name, kind, *_ in columns)
        return lambda of: self.timed(of, f"SELECT count(*), {wanted} FROM {{}}")

    def one(self, table, key):
        return self.timed(table, f"SELECT * FROM {{}} WHERE id = {key}")


class Polars:
    def __init__(self):
        import polars

        self.pl = polars

    def timed(self, table, query):
        began = time.monotonic()
        found = query(self.pl.scan_delta(table)).collect().rows()
        return time.monotonic() - began, found

    def everything(self, table):
        pl, wanted = self.pl, []
        for name, kind in pl.scan_delta(table).collect_schema().items():
            column = pl.col(name)
            if kind == pl.String:
                column = column.str.len_bytes().cast(pl.Int64)
            elif isinstance(kind, pl.Datetime):
                column = column.to_physical()
            wanted.append(column.sum())
        return lambda of: self.timed(of, lambda rows: rows.select(pl.len(), *wanted))

    def one(self, table, key):
        return self.timed(table, lambda rows: rows.filter(self.pl.col("id") == key))


def in_turns(table, other, read):
    """The shortest time of each table. What they answer must be the same."""
    took = {table: [], other: []}
    for turn in range(TURNS):
        answers = []
        for of in (table, other):
            seconds, answer = read(of)
            took[of].append(seconds)
            answers.append(answer)
        if answers[0] != answers[1]:
            raise SystemExit(f"the tables differ: {str(answers)[:2000]}")
    return {"table_s": min(took[table]), "copy_s": min(took[other])}


def compare(engine, table, other, keys):
    scan = in_turns(table, other, engine.everything(table))
    lookups = [in_turns(table, other, lambda of, key=key: engine.one(of, key)) for key in keys]
    lookup = {k: sum(one[k] for one in lookups) / len(lookups) for k in ("table_s", "copy_s")}
    return {"scan": scan, "lookup": lookup}


what, table, other, *keys = sys.argv[1:]
if what == "copy":
    found = copy(table, other)
else:
    found = compare({"duckdb": DuckDb, "polars": Polars}[what](), table, other, [int(key) for key in keys])
print(json.dumps(found))
