"""Compare a lake with its sources, row by row, through DuckDB's reader of Delta tables.

    compare.py --lake DIR [--join FILE] SOURCE=URL ...

SOURCE is a name in config.toml, URL that of a database: postgres://…/database, mysql://…/database or
mongodb://…/database. The sources must be at rest.

Tables of Postgres and MySQL: the columns have the types that the source's types become, and `EXCEPT ALL` over
all columns is empty both ways, so that doubled rows count as well. Collections of MongoDB: the documents in
`_doc` are those of the collection, byte for byte and each as often, and every other column of a row is what
the rules make of the row's own document. Exits 0 when all are equal, 1 when any differs, 2 on bad use.

--join runs a query over the lake alone, in which a table is called <source>.<table>, and shows its rows.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

import duckdb
import duckdb_extensions

import sources
from sources import ident, text

COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
HERE = os.path.dirname(os.path.abspath(__file__))


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def escaped(segment):
    """A name as a folder of the lake; the rule is in README.md."""
    out = ""
    for i, b in enumerate(segment.encode()):
        keep = re.fullmatch(rb"[A-Za-z0-9_.-]", bytes([b])) and not (i == 0 and b in b"._")
        out += chr(b) if keep else f"~{b:02X}"
    return out


class Lake:
    def __init__(self, folder, scratch):
        self.folder, self.scratch = folder, scratch
        self.con = duckdb.connect(os.path.join(scratch, "compare.db"))
        duckdb_extensions.import_extension("delta", con=self.con)
        self.con.execute("LOAD delta; SET TimeZone='UTC'; CREATE SCHEMA source; CREATE SCHEMA lake")

    def location(self, name, schema, table):
        return os.path.join(self.folder, *(escaped(s) for s in (name, schema, table)))

    def count(self, relation):
        return self.con.execute(f"SELECT count(*) FROM {relation}").fetchone()[0]

    def take_source(self, source, table, columns):
        path = os.path.join(self.scratch, "rows.csv")
        source.export(table, columns, path)
        shape = ", ".join(f"{text(c)}: 'VARCHAR'" for c in columns)
        casts = ", ".join(f"CAST({ident(c)} AS {k}) AS {ident(c)}" for c, k in columns.items())
        self.con.execute(
            f"CREATE OR REPLACE TABLE source.t AS SELECT {casts} FROM read_csv({text(path)}, "
            f"columns={{{shape}}}, header=false, auto_detect=false, delim=',', quote='\"', escape='\"', "
            "nullstr='\\N', allow_quoted_nulls=false, parallel=false, max_line_size=268435456)"
        )
        os.unlink(path)

    def compare_rows(self, source, table, columns, location):
        """The differences of a SQL table, as lines; and its counts."""
        self.take_source(source, table, columns)
        self.con.execute(f"CREATE OR REPLACE TABLE lake.t AS SELECT * FROM delta_scan({text(location)})")
        found = {r[0]: r[1] for r in self.con.execute("DESCRIBE lake.t").fetchall()}
        bad = [f"column {c} is missing in the lake" for c in columns if c not in found]
        bad += [f"column {c} is only in the lake" for c in found if c not in columns]
        bad += [f"column {c} is {found[c]} in the lake, not {t}" for c, t in columns.items() if found.get(c, t) != t]
        count = self.count("source.t"), self.count("lake.t")
        names = ", ".join(ident(c) for c in columns if c in found)
        for here, there in (("source", "lake"), ("lake", "source")) if names else ():
            self.con.execute(
                f"CREATE OR REPLACE TEMP TABLE only_here AS SELECT {names} FROM {here}.t "
                f"EXCEPT ALL SELECT {names} FROM {there}.t"
            )
            if n := self.count("only_here"):
                bad.append(f"{n} rows only in the {here}")
                bad += ["  " + repr(r) for r in self.con.execute("SELECT * FROM only_here ORDER BY ALL LIMIT 3").fetchall()]
        return bad, count, len(columns)

    def compare_documents(self, source, table, documents, location):
        """The same of a collection; DuckDB reads the table, pymongo compares."""
        readers = os.path.join(HERE, "..", "readers", "lake_rows.py")
        asked = json.dumps({"path": location}) + "\n"
        read = subprocess.run([sys.executable, readers], input=asked, check=True, stdout=subprocess.PIPE, text=True)
        rows = json.loads(read.stdout)
        if "rows" not in rows:
            return [rows.get("error", "the table is not in the lake")], (documents, 0), 0
        asked = {"url": source.url, "database": source.schema, "tables": {table: rows}}
        program = os.path.join(HERE, "..", "support", "mongo_compare.py")
        answer = subprocess.run([source.python, program], input=json.dumps(asked), stdout=subprocess.PIPE, text=True)
        bad = answer.stdout.splitlines()
        if answer.returncode and not bad:
            sys.exit("compare: the comparison of the documents failed")
        return bad, (documents, len(rows["rows"])), len(rows["columns"])

    def compare(self, source, table, shape, location):
        one = self.compare_documents if isinstance(source, sources.MongoDb) else self.compare_rows
        try:
            return one(source, table, shape, location)
        except duckdb.Error as e:
            return [f"the lake's table can't be read: {e}"], ("?", "?"), 0

    def join(self, file, tables):
        """Shows what the query finds; it must find something."""
        for name, schema, table in tables:
            self.con.execute(f"CREATE SCHEMA IF NOT EXISTS {ident(name)}")
            location = text(self.location(name, schema, table))
            self.con.execute(f"CREATE VIEW {ident(name)}.{ident(table)} AS FROM delta_scan({location})")
        with open(file) as f:
            query = f.read()
        print("\n" + query)
        answer = self.con.sql(query)
        answer.show(max_width=118)
        return len(answer) > 0


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--psql", default="psql")
    ap.add_argument("--mysql", default="mysql")
    ap.add_argument("--pymongo", default="python3", help="a Python that has pymongo")
    ap.add_argument("--lake", required=True, help="the folder of lake.url")
    ap.add_argument("--join", metavar="FILE")
    ap.add_argument("sources", nargs="+", metavar="SOURCE=URL")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        lake = Lake(a.lake, scratch)
        print(f"{'table':<24}{'source':>12}{'lake':>12}   columns")
        worse, seen = 0, []
        for name, url in (pair.split("=", 1) for pair in a.sources):
            source = sources.source(url, a)
            tables = source.tables()
            if not tables:
                sys.exit(f"compare: {source.schema} of the source {name} has no table")
            for table, shape in tables.items():
                bad, count, width = lake.compare(source, table, shape, lake.location(name, source.schema, table))
                seen.append((name, source.schema, table))
                worse += bool(bad)
                verdict = paint("31;1", "DIFFERENT") if bad else paint("32;1", "equal")
                rows = [f"{n:,}" if isinstance(n, int) else n for n in count]
                print(f"{name + '.' + table:<24}{rows[0]:>12}{rows[1]:>12}   {width:<9}{verdict}", flush=True)
                for line in bad:
                    print("    " + line)
        if a.join and not worse and not lake.join(a.join, seen):
            sys.exit("compare: the query finds no row")
        lake.con.close()
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
