"""What takes much memory: a transaction, columns, tables and cells, in Postgres."""

from dataclasses import dataclass
from typing import Callable

# The sizes of all cases are for so many rows of the first; with fewer they are as much smaller.
ROWS = 5_000_000

MAKE_COLUMNS = """
DO $$ BEGIN
  CREATE SCHEMA broad;
  EXECUTE (SELECT 'CREATE TABLE broad.t (id int PRIMARY KEY, '
                  || string_agg(format('c%s %s', i, CASE i % 2 WHEN 0 THEN 'smallint' ELSE 'text' END), ', ') || ')'
           FROM generate_series(2, COLUMNS) i);
  EXECUTE (SELECT 'INSERT INTO broad.t SELECT id, '
                  || string_agg(format(CASE i % 2 WHEN 0 THEN '(id + %1$s) %% 1000'
                                                  ELSE '(id * %1$s %% 997)::text' END, i), ', ')
                  || ' FROM generate_series(1, ROWS) id'
           FROM generate_series(2, COLUMNS) i);
END $$
"""
CHANGE_COLUMNS = "UPDATE broad.t SET c2 = -c2, c3 = c3 || '!' WHERE id % 2 = 0"

MAKE_TABLES = """
DO $$ BEGIN
  CREATE SCHEMA many;
  FOR i IN 1..TABLES LOOP
    EXECUTE format('CREATE TABLE many.t%s (id int PRIMARY KEY, a int NOT NULL, b text)', i);
    EXECUTE format('INSERT INTO many.t%1$s SELECT id, id * %1$s, md5(id::text) FROM generate_series(1, 100) id', i);
    COMMIT;
  END LOOP;
END $$
"""
CHANGE_TABLES = """
DO $$ BEGIN
  FOR i IN 1..TABLES LOOP
    EXECUTE format('UPDATE many.t%s SET a = -a WHERE id = 7', i);
    COMMIT;
  END LOOP;
END $$
"""

# Texts that don't get smaller when they are packed.
CELL = "(SELECT string_agg(md5(id || 'SEED' || k), '') FROM generate_series(1, BYTES / 32) k)"
MAKE_CELLS = f"""
DO $$ BEGIN
  CREATE SCHEMA cells;
  CREATE TABLE cells.t (id int PRIMARY KEY, body text NOT NULL);
  ALTER TABLE cells.t ALTER body SET STORAGE EXTERNAL;
  INSERT INTO cells.t SELECT id, {CELL.replace("SEED", "a")} FROM generate_series(1, 4) id;
END $$
"""
CHANGE_CELLS = f"UPDATE cells.t SET body = {CELL.replace('SEED', 'b')}"


@dataclass
class Case:
    title: str
    # The pattern of its tables, and their names.
    pattern: str
    tables: list[str]
    make: Callable
    change: Callable
    # Bytes of the largest cell.
    cell: int


def filled(statement, **sizes):
    for name, size in sizes.items():
        statement = statement.replace(name, str(size))
    return lambda source: source.sql(statement)


def cases(rows):
    share = min(1, rows / ROWS)
    broad, columns = max(20, round(20_000 * share)), 1_600
    tables = max(2, round(2_000 * share))
    cell = max(32_000, round(64_000_000 * share) // 32 * 32)
    return {
        "transaction": Case(
            f"a transaction of {rows:,} changes", "public.orders", ["public.orders"],
            lambda source: source.make(rows), filled("UPDATE orders SET amount = amount + 1"), 200,
        ),
        "columns": Case(
            f"{columns:,} columns, {broad:,} rows", "broad.*", ["broad.t"],
            filled(MAKE_COLUMNS, COLUMNS=columns, ROWS=broad), filled(CHANGE_COLUMNS), 4,
        ),
        "tables": Case(
            f"{tables:,} tables", "many.*", [f"many.t{i}" for i in range(1, tables + 1)],
            filled(MAKE_TABLES, TABLES=tables), filled(CHANGE_TABLES, TABLES=tables), 32,
        ),
        "cells": Case(
            f"4 cells of {cell / 1e6:g} MB", "cells.*", ["cells.t"],
            filled(MAKE_CELLS, BYTES=cell), filled(CHANGE_CELLS, BYTES=cell), cell,
        ),
    }
