"""Postgres, for the benchmark."""

import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


def changes(rows, count, random):
    """Of twenty statements eighteen update a row, one deletes one, and one gives one another key."""
    statements = ["BEGIN;"]
    for n in range(count):
        row = random.randint(1, rows)
        if n % 20 == 0:
            statements.append(f"DELETE FROM orders WHERE id = {row};")
        elif n % 20 == 1:
            statements.append(f"UPDATE orders SET id = {random.randint(rows + 1, 2**40)} WHERE id = {row};")
        else:
            statements.append(f"UPDATE orders SET status = 's{row % 7}', amount = amount + 1 WHERE id = {row};")
    return " ".join([*statements, "COMMIT;\n"])


class Postgres:
    kind, title, server = "postgres", "Postgres", "pg15"
    merge = "rewrite"
    table = "public.orders"

    def __init__(self):
        self.tables = self.table
        self.bin, self.url = os.environ["PG15_BIN"], os.environ["LAKEWARD_TEST_PG15_URL"]
        self.compared = self.url

    def psql(self, *args):
        command = [f"{self.bin}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *args, self.url]
        env = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout.strip()

    def sql(self, statement):
        return self.psql("-c", statement)

    def version(self):
        return self.sql("SHOW server_version")

    def source(self, name):
        return f'url = "{self.url}"\ntables = ["{self.tables}"]'

    def make(self, rows):
        self.psql("-v", f"n={rows}", "-f", f"{HERE}/w1.sql")

    def drop(self, tables):
        """One at a time: together they would need more locks than the server has."""
        names = ",".join(tables)
        self.sql(f"DO $$ DECLARE name text; BEGIN FOREACH name IN ARRAY '{{{names}}}'::text[] LOOP "
                 "EXECUTE 'DROP TABLE ' || name; COMMIT; END LOOP; END $$")

    def copies(self, python, out):
        """Yardsticks of the snapshot: (what, command)."""
        yield "COPY binary to /dev/null", [f"{self.bin}/psql", "-Xqc", "COPY orders TO STDOUT (FORMAT binary)", self.url]
        yield "COPY csv, pyarrow, write_deltalake", [python, f"{HERE}/script.py", f"{self.bin}/psql", self.url, out]

    def changed(self):
        return int(self.sql("SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'orders'"))

    def before_changes(self):
        if not int(self.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'bench_recv'")):
            self.sql("SELECT pg_create_logical_replication_slot('bench_recv', 'pgoutput')")

    def change(self, rows, round_):
        """Changes rows all over the table; how many changes that were."""
        before = self.changed()
        sizes = {"n": rows, "u": rows // 5, "d": rows // 25, "i": rows // 25, "seed": 6 + round_}
        self.psql(*[x for k, v in sizes.items() for x in ("-v", f"{k}={v}")], "-f", f"{HERE}/w3.sql")
        return self.changed() - before

    def writer(self):
        """A client that takes what `changes` makes."""
        command = [f"{self.bin}/psql", "-Xq", "-v", "ON_ERROR_STOP=1", self.url]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def changes(self, rows, count, random):
        """A transaction of so many changes, spread over all rows."""
        return changes(rows, count, random)

    def at_rate(self, rows, rate, seconds):
        """A client that changes so many rows a second, one at a time, for so long."""
        sizes = {"n": rows, "rate": rate, "secs": seconds}
        command = [f"{self.bin}/psql", "-Xq", "-v", "ON_ERROR_STOP=1"]
        command += [x for k, v in sizes.items() for x in ("-v", f"{k}={v}")]
        env = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}
        return subprocess.Popen([*command, "-f", f"{HERE}/rate.sql", self.url], stdin=subprocess.DEVNULL, env=env)

    def end(self):
        """The end of the log."""
        return self.sql("SELECT pg_current_wal_lsn()")

    def acknowledged(self, name, end):
        """Whether Lakeward has told the server that it has all up to there."""
        slot = f"FROM pg_replication_slots WHERE slot_name = 'lakeward_{name}'"
        return self.sql(f"SELECT confirmed_flush_lsn >= '{end}' {slot}") == "t"

    def followers(self, name, changes, out):
        """Yardsticks of the stream: (what, command)."""
        end = self.sql("SELECT pg_current_wal_lsn()")
        receive = [f"{self.bin}/pg_recvlogical", "-d", self.url, "-S", "bench_recv", "--start", "-f", "/dev/null"]
        receive += ["-o", "proto_version=1", "-o", f"publication_names=lakeward_{name}", f"--endpos={end}", "--no-loop"]
        yield "pg_recvlogical to /dev/null", receive

    def forget(self, name):
        """The source's slot and publication, so that they keep no log."""
        self.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                 f"WHERE slot_name IN ('lakeward_{name}', 'bench_recv') AND NOT active")
        self.sql(f"DROP PUBLICATION IF EXISTS lakeward_{name}")

    # What the daemon does to the source, looked at while it runs.

    def look(self):
        mine = "application_name LIKE 'lakeward%' AND pid <> pg_backend_pid()"
        age, locks, log = self.sql(
            f"SELECT (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0) FROM pg_stat_activity "
            f"WHERE {mine} AND state = 'active' AND backend_type = 'client backend'), "
            f"(SELECT coalesce(string_agg(DISTINCT l.mode, ' '), '') FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            f"WHERE {mine} AND l.locktype = 'relation'), "
            "(SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0) FROM pg_replication_slots "
            "WHERE slot_name LIKE 'lakeward%')"
        ).split("|")
        return {"statement": float(age), "locks": locks.split(), "log": int(log)}

    def statements(self):
        """The longest statement, where the server keeps a record of them."""
        return None
