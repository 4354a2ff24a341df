"""The turns of benches/run, which starts the servers and says in the environment where all is."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from mongodb import MongoDb
from mysql import MySql
from postgres import Postgres
from verifying import verifying

LAKEWARD = os.environ["LAKEWARD"]
VENVS = os.path.join(os.environ["READERS_HOME"], "venvs")
HERE = os.path.dirname(os.path.abspath(__file__))
TICK = os.sysconf("SC_CLK_TCK")
OURS = "lakeward run --until-current"
SOURCES = {s.kind: s for s in (Postgres, MySql, MongoDb)}
child = None


def stop(*_):
    if child is not None:
        os.kill(child.pid, signal.SIGTERM)
    sys.exit(143)


def server_cpu(source):
    """CPU seconds that the server has used: its first process, the living and the dead children."""
    pid = os.environ[f"{source.server.upper()}_PID"]
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        pids = [pid, *f.read().split()]
    total = 0
    for one in pids:
        try:
            with open(f"/proc/{one}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(fields[i]) for i in ((11, 12, 13, 14) if one == pid else (11, 12)))
    return total / TICK


class Watch:
    """Looks at the source four times a second while the daemon runs, for what it does there."""

    def __init__(self, source):
        self.source, self.ended = source, threading.Event()
        self.seen = {"statement": 0.0, "locks": set(), "log": 0}
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        while not self.ended.wait(0.25):
            seen = self.source.look()
            self.seen["locks"].update(seen["locks"])
            for what in ("statement", "log"):
                known = None not in (seen.get(what), self.seen[what])
                self.seen[what] = max(self.seen[what], seen[what]) if known else None

    def __enter__(self):
        self.source.statements()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        recorded = self.source.statements()
        if recorded is not None:
            self.seen["statement"] = recorded
        statement, log = self.seen["statement"], self.seen["log"]
        print(
            f"    on the source: longest statement {'not told' if statement is None else f'{statement:.2f} s'}; "
            f"locks: {', '.join(sorted(self.seen['locks'])) or 'none seen'}; "
            f"log kept: {'not told' if log is None else f'{log / 2**20:,.0f} MiB'}",
            flush=True,
        )


def measured(source, what, round_, rows, command, log):
    """Run a command to its end; what it used."""
    global child
    load, server, began = os.getloadavg()[0], server_cpu(source), time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode, child = os.waitstatus_to_exitcode(status), None
    wall = time.monotonic() - began
    if status:
        log.flush()
        with open(log.name, errors="replace") as f:
            sys.stderr.write("".join(f.readlines()[-30:]))
        sys.exit(f"bench: {what} ended with {os.waitstatus_to_exitcode(status)}; the end of its log is above")
    figures = {
        "what": what,
        "round": round_,
        "rows": rows,
        "wall_s": wall,
        "rows_per_s": rows / wall,
        "cpu_s_per_million": (usage.ru_utime + usage.ru_stime) / rows * 1e6,
        "server_cpu_s_per_million": (server_cpu(source) - server) / rows * 1e6,
        "max_rss_mib": usage.ru_maxrss / 1024,
        "load": load,
    }
    print(
        f"{what:<44}{round_:>3}{load:>7.2f}{wall:>9.1f}{figures['rows_per_s']:>12,.0f}"
        f"{figures['cpu_s_per_million']:>10.2f}{figures['server_cpu_s_per_million']:>10.2f}"
        f"{figures['max_rss_mib']:>9.0f}",
        flush=True,
    )
    return figures


def heading(text):
    print(f"\n{text}\n{'':<44}{'#':>3}{'load':>7}{'wall s':>9}{'rows/s':>12}{'CPU s/M':>10}{'server':>10}{'RSS MiB':>9}")


def ratios(figures):
    def best(what):
        return min(f["cpu_s_per_million"] for f in figures if f["what"] == what)

    for other in dict.fromkeys(f["what"] for f in figures if f["what"] != OURS):
        print(f"  {OURS} / {other}: {best(OURS) / best(other):.2f} of its CPU a row (best turns)")


def run(source, folder, name, merge="rewrite"):
    """Lakeward with a configuration of one source, as a command."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    path = os.path.join(folder, f"{name}.toml")
    with open(path, "w") as f:
        f.write(
            f'[lake]\nurl = "{folder}/lake"\nstate_dir = "{folder}/state"\n\n'
            f'[http]\nlisten = "127.0.0.1:{port}"\n\n'
            f"[source.{name}.{source.kind}]\n{source.source(name)}\n"
            f'[source.{name}.table."{source.table}"]\nmerge = "{merge}"\n'
        )
    return [LAKEWARD, "run", "--config", path, "--until-current"]


def snapshot(source, a, log):
    heading(f"{source.title}, W1: the snapshot of {a.rows:,} rows")
    python, out = f"{VENVS}/{'deltalake' if source.kind == 'postgres' else 'connectorx'}/bin/python", os.path.join(a.dir, "script")
    figures = []
    for r in range(1, a.rounds + 1):
        name = f"w1_{r}"
        with Watch(source):
            figures.append(measured(source, OURS, r, a.rows, run(source, a.dir, name), log))
        source.forget(name)
        if r < a.rounds:
            shutil.rmtree(os.path.join(a.dir, "lake", name))
        for what, command in source.copies(python, out):
            if os.path.exists(command[0]):
                figures.append(measured(source, what, r, a.rows, command, log))
            elif r == 1:
                print(f"{what}: not installed here")
            shutil.rmtree(out, ignore_errors=True)
    ratios(figures)
    if a.verify:
        verify(source, a, f"w1_{a.rounds}")
    return figures


def stream(source, a, log):
    name, merge = "w3", a.merge or source.merge
    command = run(source, a.dir, name, merge)
    heading(f"{source.title}, W3: the snapshot before it (not a figure)")
    measured(source, OURS, 0, a.rows, command, log)
    figures, out = [], os.path.join(a.dir, "log_copy")
    for r in range(1, a.rounds + 1):
        source.before_changes()
        changes = source.change(a.rows, r)
        if r == 1:
            heading(f'{source.title}, W3: catching up with {changes:,} changes, merge = "{merge}"')
        with Watch(source):
            figures.append(measured(source, OURS, r, changes, command, log))
        for what, follower in source.followers(name, changes, out):
            figures.append(measured(source, what, r, changes, follower, log))
            shutil.rmtree(out, ignore_errors=True)
    ratios(figures)
    if a.verify:
        verify(source, a, name)
    source.forget(name)
    return figures


def verify(source, a, name):
    compare = [f"{VENVS}/duckdb/bin/python", os.path.join(HERE, "..", "tests", "demo", "compare.py")]
    programs = ["--psql", f"{os.environ.get('PG15_BIN')}/psql", "--mysql", f"{os.environ.get('MYSQL_BIN')}/mysql"]
    programs += ["--pymongo", os.environ.get("LAKEWARD_TEST_PYMONGO", "python3")]
    where = ["--lake", f"{a.dir}/lake", f"{name}={source.compared}"]
    subprocess.run([*compare, *programs, *where], check=True, env={**os.environ, "TMPDIR": a.dir})


def main():
    ap = argparse.ArgumentParser(allow_abbrev=False)
    ap.add_argument("--dir", required=True)
    ap.add_argument("--source", choices=SOURCES, required=True)
    ap.add_argument("--rows", type=int)
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--only", choices=["w1", "w3", "verify"])
    ap.add_argument("--merge", choices=["rewrite", "deletion-vectors"])
    ap.add_argument("--minutes", type=float, default=15)
    ap.add_argument("--rate", type=int, default=1000)
    ap.add_argument("--verify", action="store_true")
    ap.add_argument("--json")
    ap.add_argument("--keep", action="store_true")
    a = ap.parse_args()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, stop)
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown")
    source = SOURCES[a.source]()
    most = {"mongodb": 20_000 if a.only == "verify" else 2_000_000}
    a.rows = a.rows or most.get(a.source, 5_000_000)
    a.dir = os.path.join(a.dir, a.source)
    os.makedirs(a.dir)
    print(f"\n{os.cpu_count()} x {model}; load {os.getloadavg()[0]:.2f}; {source.title} {source.version()}")
    print(f"making {a.rows:,} rows", flush=True)
    source.make(a.rows)
    figures = {}
    with open(os.path.join(a.dir, "log"), "w") as log:
        if a.only in (None, "w1"):
            figures["w1"] = snapshot(source, a, log)
        if a.only in (None, "w3"):
            figures["w3"] = stream(source, a, log)
        if a.only == "verify":
            command = run(source, a.dir, "verify", "deletion-vectors")
            figures["verify"] = verifying(source, command, server_cpu, a, log)
    if a.json:
        every = {}
        if os.path.exists(a.json):
            with open(a.json) as f:
                every = json.load(f)
        with open(a.json, "w") as f:
            json.dump({**every, a.source: figures}, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
