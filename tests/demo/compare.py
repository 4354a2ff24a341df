"""Compare a lake with its Postgres source, row by row, through DuckDB's reader of Delta tables.

    compare.py --psql PSQL --url URL --lake DIR --source NAME [--schema public] [--rows N]

Every table of the schema: the column types are the ones the source's types become, and
`EXCEPT ALL` over all columns is empty both ways, so that doubled rows count as well. The
source must be at rest. Exits 0 when all are equal, 1 when any differs, 2 on bad use.
The source's rows come as CSV text by COPY and are cast to the expected types, never to the
types found in the lake: a rounded or shortened value in the lake can't hide.
"""

import argparse
import csv
import io
import os
import re
import subprocess
import sys
import tempfile

import duckdb
import duckdb_extensions

COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def expected_type(pg):
    """The DuckDB type of the lake's column for a Postgres type."""
    plain = {
        "smallint": "SMALLINT",
        "integer": "INTEGER",
        "bigint": "BIGINT",
        "real": "FLOAT",
        "double precision": "DOUBLE",
        "boolean": "BOOLEAN",
        "date": "DATE",
        "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
        "text": "VARCHAR",
        "uuid": "VARCHAR",
        "jsonb": "VARCHAR",
        "json": "VARCHAR",
    }
    if m := re.fullmatch(r"numeric\((\d+),(\d+)\)", pg):
        return f"DECIMAL({m[1]},{m[2]})"
    if pg.startswith("character varying"):
        return "VARCHAR"
    if pg not in plain:
        sys.exit(f"compare: no rule for the type {pg}")
    return plain[pg]


def ident(name):
    return '"' + name.replace('"', '""') + '"'


def text(value):
    return "'" + value.replace("'", "''") + "'"


def escaped(segment):
    """A name as a folder of the lake; the rule is in README.md."""
    out = ""
    for i, b in enumerate(segment.encode()):
        keep = re.fullmatch(rb"[A-Za-z0-9_.-]", bytes([b])) and not (i == 0 and b in b"._")
        out += chr(b) if keep else f"~{b:02X}"
    return out


class Source:
    def __init__(self, psql, url):
        self.command = [psql, "-XqAt", "-v", "ON_ERROR_STOP=1", url]
        pins = {"PGTZ": "UTC", "PGDATESTYLE": "ISO", "PGCLIENTENCODING": "UTF8"}
        self.env = {**os.environ, **pins, "PGOPTIONS": "-c extra_float_digits=3"}

    def rows(self, sql):
        copy = f"COPY ({sql}) TO STDOUT (FORMAT csv)"
        out = subprocess.run([*self.command, "-c", copy], env=self.env, check=True, stdout=subprocess.PIPE)
        return list(csv.reader(io.StringIO(out.stdout.decode())))

    def export(self, sql, path):
        with open(path, "wb") as f:
            copy = f"COPY ({sql}) TO STDOUT (FORMAT csv, NULL '\\N')"
            subprocess.run([*self.command, "-c", copy], env=self.env, check=True, stdout=f)

    def tables(self, schema):
        found = {}
        for table, column, kind in self.rows(f"""
            SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = {text(schema)}::regnamespace AND c.relkind IN ('r', 'p')
              AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY c.relname, a.attnum"""):
            found.setdefault(table, []).append((column, kind))
        return found


def load_source(con, source, schema, table, columns, path):
    names = ", ".join(ident(c) for c, _ in columns)
    source.export(f"SELECT {names} FROM {ident(schema)}.{ident(table)}", path)
    shape = ", ".join(f"{text(c)}: 'VARCHAR'" for c, _ in columns)
    casts = ", ".join(f"CAST({ident(c)} AS {expected_type(k)}) AS {ident(c)}" for c, k in columns)
    con.execute(
        f"CREATE TABLE source.{ident(table)} AS SELECT {casts} FROM read_csv({text(path)}, "
        f"columns={{{shape}}}, header=false, auto_detect=false, delim=',', quote='\"', escape='\"', "
        "nullstr='\\N', allow_quoted_nulls=false, parallel=false, max_line_size=268435456)"
    )
    os.unlink(path)


def compare(con, table, columns, location):
    """The differences of one table, as lines; and its counts."""
    con.execute(f"CREATE TABLE lake.{ident(table)} AS SELECT * FROM delta_scan({text(location)})")
    found = {r[0]: r[1] for r in con.execute(f"DESCRIBE lake.{ident(table)}").fetchall()}
    wanted = {c: expected_type(k) for c, k in columns}
    bad = [f"column {c} is missing in the lake" for c in wanted if c not in found]
    bad += [f"column {c} is only in the lake" for c in found if c not in wanted]
    bad += [f"column {c} is {found[c]} in the lake, not {t}" for c, t in wanted.items() if found.get(c, t) != t]
    count = [con.execute(f"SELECT count(*) FROM {s}.{ident(table)}").fetchone()[0] for s in ("source", "lake")]
    names = ", ".join(ident(c) for c in wanted if c in found)
    if not names:
        return bad, count
    for here, there in (("source", "lake"), ("lake", "source")):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE only_here AS SELECT {names} FROM {here}.{ident(table)} "
            f"EXCEPT ALL SELECT {names} FROM {there}.{ident(table)}"
        )
        n = con.execute("SELECT count(*) FROM only_here").fetchone()[0]
        if n:
            bad.append(f"{n} rows only in the {here}")
            bad += ["  " + repr(r) for r in con.execute("SELECT * FROM only_here ORDER BY ALL LIMIT 3").fetchall()]
    return bad, count


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--psql", required=True)
    ap.add_argument("--url", required=True)
    ap.add_argument("--lake", required=True, help="the folder of lake.url")
    ap.add_argument("--source", required=True, help="the name of the source in config.toml")
    ap.add_argument("--schema", default="public")
    ap.add_argument("--rows", type=int, default=0, help="show as many rows of each lake table")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as tmp:
        con = duckdb.connect(os.path.join(tmp, "compare.db"))
        duckdb_extensions.import_extension("delta", con=con)
        con.execute("LOAD delta; SET TimeZone='UTC'; CREATE SCHEMA source; CREATE SCHEMA lake")
        source = Source(a.psql, a.url)
        tables = source.tables(a.schema)
        if not tables:
            sys.exit(f"compare: the schema {a.schema} of the source has no table")
        print(f"{'table':<16}{'source':>12}{'lake':>12}   columns")
        worse = 0
        for table, columns in tables.items():
            location = os.path.join(a.lake, *(escaped(s) for s in (a.source, a.schema, table)))
            load_source(con, source, a.schema, table, columns, os.path.join(tmp, "rows.csv"))
            try:
                bad, count = compare(con, table, columns, location)
            except duckdb.Error as e:
                bad, count = [f"the lake's table can't be read: {e}"], None
            worse += bool(bad)
            verdict = paint("31;1", "DIFFERENT") if bad else paint("32;1", "equal")
            rows = [f"{n:,}" for n in count or ()] or ["?", "?"]
            print(f"{table:<16}{rows[0]:>12}{rows[1]:>12}   {len(columns):<9}{verdict}")
            for line in bad:
                print("    " + line)
        if a.rows and not worse:
            print()
            for table in tables:
                print(f"the newest rows of the lake's {table}:")
                con.sql(f"SELECT * FROM lake.{ident(table)} ORDER BY 1 DESC, 2 DESC LIMIT {a.rows}").show(max_width=118, max_col_width=16)
        con.close()
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
