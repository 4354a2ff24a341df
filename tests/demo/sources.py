"""What compare.py asks of a source: its tables, and their rows in a form that can't lose anything.

A SQL source says which type each column must have in the lake, and writes its rows as CSV text, which is cast
to those types and never to the types found in the lake: a rounded or shortened value in the lake can't hide.
"""

import csv
import io
import os
import re
import subprocess
import sys
from urllib.parse import unquote, urlsplit

POSTGRES = {
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
MYSQL = {
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "bigint unsigned": "DECIMAL(20,0)",
    "date": "DATE",
    "text": "VARCHAR",
    "json": "VARCHAR",
}


def ident(name):
    return '"' + name.replace('"', '""') + '"'


def text(value):
    return "'" + value.replace("'", "''") + "'"


class Postgres:
    """Rows come by COPY."""

    def __init__(self, url, programs):
        self.command = [programs.psql, "-XqAt", "-v", "ON_ERROR_STOP=1", url]
        pins = {"PGTZ": "UTC", "PGDATESTYLE": "ISO", "PGCLIENTENCODING": "UTF8"}
        self.env = {**os.environ, **pins, "PGOPTIONS": "-c extra_float_digits=3"}
        self.schema = "public"

    def rows(self, sql):
        copy = f"COPY ({sql}) TO STDOUT (FORMAT csv)"
        out = subprocess.run([*self.command, "-c", copy], env=self.env, check=True, stdout=subprocess.PIPE)
        return csv.reader(io.StringIO(out.stdout.decode()))

    def export(self, table, columns, path):
        names = ", ".join(ident(c) for c in columns)
        copy = f"COPY (SELECT {names} FROM {ident(self.schema)}.{ident(table)}) TO STDOUT (FORMAT csv, NULL '\\N')"
        with open(path, "wb") as f:
            subprocess.run([*self.command, "-c", copy], env=self.env, check=True, stdout=f)

    def tables(self):
        found = {}
        for table, column, kind in self.rows(f"""
            SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = {text(self.schema)}::regnamespace AND c.relkind IN ('r', 'p')
              AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY c.relname, a.attnum"""):
            found.setdefault(table, {})[column] = self.lake_type(kind)
        return found

    @staticmethod
    def lake_type(kind):
        if m := re.fullmatch(r"numeric\((\d+),(\d+)\)", kind):
            return f"DECIMAL({m[1]},{m[2]})"
        if kind.startswith("character varying"):
            return "VARCHAR"
        return POSTGRES.get(kind) or sys.exit(f"compare: no rule for Postgres's type {kind}")


class MySql:
    """Rows come as CSV that the server itself writes, value by value."""

    def __init__(self, url, programs):
        at = urlsplit(url)
        self.schema = at.path.strip("/")
        self.command = [programs.mysql, "--no-defaults", "-h", at.hostname, "-P", str(at.port), "-u", at.username]
        self.command += ["--default-character-set=utf8mb4", "-BNr", self.schema]
        self.env = {**os.environ, "MYSQL_PWD": unquote(at.password or "")}

    def ask(self, sql, out):
        pinned = f"SET time_zone = '+00:00'; {sql}"
        return subprocess.run([*self.command, "-e", pinned], env=self.env, check=True, stdout=out).stdout

    def rows(self, sql):
        return csv.reader(io.StringIO(self.ask(sql, subprocess.PIPE).decode()))

    def export(self, table, columns, path):
        def value(column):
            quoted = f"CONCAT('\"', REPLACE(CAST({self.name(column)} AS CHAR), '\"', '\"\"'), '\"')"
            return f"COALESCE({quoted}, '\\\\N')"

        line = ", ".join(value(c) for c in columns)
        with open(path, "wb") as f:
            self.ask(f"SELECT CONCAT_WS(',', {line}) FROM {self.name(table)}", f)

    @staticmethod
    def name(name):
        return "`" + name.replace("`", "``") + "`"

    def tables(self):
        found = {}
        for table, column, kind in self.rows(f"""
            SELECT CONCAT_WS(',', TABLE_NAME, COLUMN_NAME, CONCAT('"', COLUMN_TYPE, '"'))
            FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {text(self.schema)}
            ORDER BY TABLE_NAME, ORDINAL_POSITION"""):
            found.setdefault(table, {})[column] = self.lake_type(kind)
        return found

    @staticmethod
    def lake_type(kind):
        if m := re.fullmatch(r"decimal\((\d+),(\d+)\)", kind):
            return f"DECIMAL({m[1]},{m[2]})"
        if m := re.fullmatch(r"(timestamp|datetime)(\(\d\))?", kind):
            return "TIMESTAMP WITH TIME ZONE" if m[1] == "timestamp" else "TIMESTAMP"
        if kind.startswith(("varchar", "char", "enum")):
            return "VARCHAR"
        plain = re.sub(r"\(\d+\)", "", kind)  # MariaDB's bigint(20)
        return MYSQL.get(plain) or sys.exit(f"compare: no rule for MySQL's type {kind}")


class MongoDb:
    """Documents are compared by pymongo, in its own environment (tests/support/mongo_compare.py)."""

    def __init__(self, url, programs):
        self.url, self.python = url, programs.pymongo
        self.schema = urlsplit(url).path.strip("/")

    def ask(self, program, *args):
        command = [self.python, "-c", program, self.url, self.schema, *args]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()

    def tables(self):
        """Collections with the count of their documents."""
        program = (
            "import sys, pymongo; db = pymongo.MongoClient(sys.argv[1])[sys.argv[2]]\n"
            "for name in sorted(db.list_collection_names()): print(db[name].count_documents({}), name)"
        )
        rows = (line.split(" ", 1) for line in self.ask(program))
        return {name: int(count) for count, name in rows if not name.startswith("system.")}


def source(url, programs):
    kinds = {"postgres": Postgres, "postgresql": Postgres, "mysql": MySql, "mongodb": MongoDb}
    scheme = urlsplit(url).scheme
    if scheme not in kinds:
        sys.exit(f"compare: a source's URL begins with one of {', '.join(kinds)}, not {scheme}")
    return kinds[scheme](url, programs)
