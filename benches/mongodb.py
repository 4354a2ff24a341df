"""MongoDB, or the stand-in that speaks its protocol, for the benchmark. pymongo is in an environment of
its own: what talks to the server runs there (benches/documents.py)."""

import json
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


class MongoDb:
    kind, server = "mongodb", os.environ["BENCH_MONGO"]
    title = {"mongo": "MongoDB (the stand-in)", "mongors": "MongoDB (the stand-in in Rust)"}[server]
    merge = "deletion-vectors"
    table = "bench.events"

    def __init__(self):
        self.url = os.environ[f"LAKEWARD_TEST_{self.server.upper()}_URL"]
        self.compared = self.url.replace("/?", "/bench?")
        self.python = os.environ["LAKEWARD_TEST_PYMONGO"]
        self.since, self.looking = None, None

    def command(self, *args):
        return [self.python, f"{HERE}/documents.py", self.url, *map(str, args)]

    def ask(self, *args):
        return subprocess.run(self.command(*args), check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def version(self):
        return self.ask("version")

    def source(self, name):
        return f'url = "{self.url}"\ntables = ["{self.table}"]'

    def make(self, rows):
        print("    a document takes", self.ask("make", rows), "bytes")

    def copies(self, python, out):
        yield "pymongo, raw batches dropped", self.command("read")

    def before_changes(self):
        self.since = self.ask("now")

    def change(self, rows, round_):
        return int(self.ask("change", rows, rows // 2, 6 + round_))

    def writer(self):
        return subprocess.Popen(self.command("load"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def changes(self, rows, count, random):
        return f"{rows} {count} {random.getrandbits(60)}\n"

    def followers(self, name, changes, out):
        yield "pymongo, change stream dropped", self.command("watch", self.since, changes)

    def forget(self, name):
        """Nothing was made in the server."""

    def look(self):
        if self.looking is None:
            self.looking = subprocess.Popen(self.command("look"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.looking.stdin.write("look\n")
        self.looking.stdin.flush()
        return json.loads(self.looking.stdout.readline())

    def statements(self):
        return None
