"""MySQL, for the benchmark."""

import os
import re
import subprocess
from urllib.parse import urlsplit

from postgres import changes

HERE = os.path.dirname(os.path.abspath(__file__))


class MySql:
    kind, title, server = "mysql", "MySQL", "mysql"
    merge = "deletion-vectors"
    table = "cdc.orders"

    def __init__(self):
        self.bin = os.environ["MYSQL_BIN"]
        # The daemon's login is another than the yardsticks', so that its statements can be told.
        self.url, self.reader = os.environ["LAKEWARD_TEST_MYSQL_URL"], os.environ["LAKEWARD_TEST_MYSQL_REPL_URL"]
        self.compared = self.url
        at = urlsplit(self.url)
        self.login = ["--no-defaults", "-h", at.hostname, "-P", str(at.port), "-u", at.username]
        os.environ["MYSQL_PWD"] = at.password
        self.slow_log, self.log_read, self.first = None, 0, None

    def client(self, *args, **how):
        command = [f"{self.bin}/mysql", *self.login, "-BN", "cdc", *args]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **how).stdout.strip()

    def sql(self, statement):
        return self.client("-e", statement)

    def version(self):
        return self.sql("SELECT VERSION()")

    def source(self, name):
        return f'url = "{self.reader.rsplit("/", 1)[0]}"\ntables = ["{self.table}"]'

    def make(self, rows):
        with open(f"{HERE}/w1.mysql.sql") as f:
            self.client("--init-command", f"SET @n = {rows}", stdin=f)
        # Every statement with its time, to a file.
        self.sql("SET GLOBAL slow_query_log = ON, GLOBAL long_query_time = 0, GLOBAL log_output = 'FILE'")
        folder, file = self.sql("SELECT @@datadir, @@slow_query_log_file").split("\t")
        self.slow_log = os.path.join(folder, file)

    def copies(self, python, out):
        dump = [f"{self.bin}/mysqldump", *self.login, "--single-transaction", "--quick", "--no-create-info"]
        dump += ["--set-gtid-purged=OFF", "--no-tablespaces", "--result-file=/dev/null", "cdc", "orders"]
        yield "mysqldump --single-transaction to /dev/null", dump
        yield "connectorx, write_deltalake", [python, f"{HERE}/connectorx_script.py", self.url, out]

    def before_changes(self):
        self.sql("FLUSH BINARY LOGS")
        self.first = self.sql("SHOW BINARY LOGS").splitlines()[-1].split("\t")[0]

    def change(self, rows, round_):
        with open(f"{HERE}/w3.mysql.sql") as f:
            self.client(stdin=f)
        # The procedure's statements, a million of them, are not the daemon's.
        self.sql("SET GLOBAL slow_query_log = OFF")
        changes = self.sql(f"CALL w3({rows}, {rows // 5}, {rows // 25}, {rows // 25}, {6 + round_})")
        self.sql("SET GLOBAL slow_query_log = ON")
        return int(changes)

    def writer(self):
        # Its statements are not the daemon's.
        self.sql("SET GLOBAL slow_query_log = OFF")
        command = [f"{self.bin}/mysql", *self.login, "-BN", "cdc"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def changes(self, rows, count, random):
        return changes(rows, count, random)

    def followers(self, name, changes, out):
        os.makedirs(out)
        raw = [f"{self.bin}/mysqlbinlog", *self.login, "--read-from-remote-server", "--raw", "--to-last-log"]
        yield "mysqlbinlog --raw to files", [*raw, f"--result-file={out}/", self.first]

    def forget(self, name):
        """Nothing was made in the server."""

    def look(self):
        tables, rows = self.sql(
            "SELECT COALESCE(MAX(trx_tables_locked), 0), COALESCE(MAX(trx_rows_locked), 0) FROM information_schema.INNODB_TRX t "
            "JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id WHERE p.USER = 'cdc_repl'"
        ).split()
        locks = [f"{rows} rows in {tables} tables"] if int(rows) or int(tables) else []
        files = [line.split("\t") for line in self.sql("SHOW BINARY LOGS").splitlines()]
        return {"statement": 0.0, "locks": locks, "log": sum(int(f[1]) for f in files if f[0] >= (self.first or ""))}

    def statements(self):
        """The longest of the daemon's statements since the last call, in seconds, by the slow log."""
        longest, mine = 0.0, False
        with open(self.slow_log, errors="replace") as f:
            f.seek(self.log_read)
            for line in f:
                if line.startswith("# User@Host:"):
                    mine = "cdc_repl[" in line
                elif mine and (m := re.match(r"# Query_time: ([\d.]+)", line)):
                    longest = max(longest, float(m[1]))
            self.log_read = f.tell()
        return longest
