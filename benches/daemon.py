"""Lakeward with a configuration of one source: as a command, and as a daemon that runs meanwhile."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from measure import TICK

PROGRAM = os.environ["LAKEWARD"]
READERS = os.path.join(os.environ["READERS_HOME"], "venvs")
OURS = "lakeward run --until-current"
SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


def status_of(pid):
    """/proc/PID/status, in bytes where it is in kB."""
    with open(f"/proc/{pid}/status") as f:
        lines = dict(line.split(":", 1) for line in f)
    return {k: int(v.split()[0]) * 1024 for k, v in lines.items() if v.strip().endswith(" kB")}


def total(metrics, name):
    """The sum of a metric over what it is told of."""
    return sum(value for (known, _), value in metrics.items() if known == name)


class Lakeward:
    """Used as a context it is a daemon, which is asked to stop at the end."""

    def __init__(self, source, folder, name, merge="rewrite", tables=None, flush_interval="5s", retention="7d"):
        self.source, self.name, self.daemon = source, name, None
        self.lake, self.config = f"{folder}/lake", os.path.join(folder, f"{name}.toml")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        with open(self.config, "w") as f:
            f.write(
                f'[lake]\nurl = "{self.lake}"\nstate_dir = "{folder}/state"\nflush_interval = "{flush_interval}"\n'
                f'retention = "{retention}"\n\n'
                f'[http]\nlisten = "127.0.0.1:{self.port}"\n\n'
                f"[source.{name}.{source.kind}]\n{source.source(name)}\n"
            )
            for table in tables or [source.table]:
                f.write(f'[source.{name}.table."{table}"]\nmerge = "{merge}"\n')

    def until_current(self):
        return [PROGRAM, "run", "--config", self.config, "--until-current"]

    def folder(self, table):
        """Where a table is in the lake."""
        return os.path.join(self.lake, self.name, *table.split("."))

    def answer(self, *words):
        """What a command says as JSON, and its exit status."""
        done = subprocess.run(
            [PROGRAM, *words, "--json", "--config", self.config], stdout=subprocess.PIPE, text=True)
        return done.returncode, json.loads(done.stdout or "{}")

    def tables(self):
        """What `lakeward status` says of every table."""
        return self.answer("status")[1].get(self.name, {}).get("tables", {})

    # The daemon.

    def running(self, log):
        """Its messages go to this file."""
        self.log = log
        return self

    def __enter__(self):
        command = [PROGRAM, "run", "--config", self.config]
        self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self.log)
        return self

    def __exit__(self, *_):
        self.daemon.send_signal(signal.SIGTERM)
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            sys.exit("bench: the daemon did not end when it was asked to")

    def alive(self):
        if self.daemon.poll() is not None:
            sys.exit(f"bench: the daemon ended with {self.daemon.returncode}")

    def settle(self, count=1):
        """Waits until the log is followed, and so many tables are live."""
        while True:
            self.alive()
            if not self.follows():
                time.sleep(0.2)
                continue
            tables = self.tables().values()
            for table in tables:
                if table["state"] == "stopped":
                    sys.exit(f"bench: the table {table['path']} has stopped: {table.get('reason')}")
            if sum(t["state"] == "live" for t in tables) >= count:
                return
            time.sleep(1)

    def follows(self):
        try:
            return total(self.metrics(), "lakeward_source_up") == 1
        except OSError:  # It doesn't listen yet.
            return False

    def catch_up(self, look=None):
        """Waits until all that the source has committed by now is in the lake, where readers see it; `look`
        gets the metrics meanwhile."""
        end = self.source.end()
        while True:
            self.alive()
            metrics = self.metrics()
            if look:
                look(metrics)
            if self.source.acknowledged(self.name, end) and total(metrics, "lakeward_staged_changes") == 0:
                return
            time.sleep(0.2)

    def while_runs(self, client, pause):
        """Now and again, every so many seconds, while a client changes rows."""
        due = time.monotonic()
        try:
            while client.poll() is None:
                self.alive()
                yield
                due += pause
                try:
                    client.wait(max(0, due - time.monotonic()))
                except subprocess.TimeoutExpired:
                    pass
        finally:
            client.terminate()
        if client.returncode:
            sys.exit(f"bench: the load ended with {client.returncode}")

    def used(self):
        """What it has used since its start: CPU seconds, and bytes."""
        pid = self.daemon.pid
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        with open(f"/proc/{pid}/io") as f:
            io = dict(line.split(": ") for line in f)
        status = status_of(pid)
        return {
            "cpu": (int(fields[11]) + int(fields[12])) / TICK,
            "rss": status["VmRSS"],
            "rss_peak": status["VmHWM"],
            "written": int(io["write_bytes"]),
        }

    def metrics(self):
        """Its metrics: a number for each series, by its name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found = (SERIES.fullmatch(line) for line in lines if not line.startswith("#"))
        return {(m[1], m[2]): float(m[3]) for m in found if m}
