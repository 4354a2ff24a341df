"""The turns of benches/run, which starts the servers and says in the environment where all is."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

from cases import ROWS, cases
from daemon import OURS, READERS, Lakeward
from fresh import fresh
from measure import heading, measured, stop
from memory import memory
from mongodb import MongoDb
from mysql import MySql
from postgres import Postgres
from steady import steady
from verifying import verifying

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = {s.kind: s for s in (Postgres, MySql, MongoDb)}
# Parts that are run by themselves.
PARTS = {"verify": verifying, "fresh": fresh, "steady": steady, "memory": memory}


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


def ratios(figures):
    def best(what):
        return min(f["cpu_s_per_million"] for f in figures if f["what"] == what)

    for other in dict.fromkeys(f["what"] for f in figures if f["what"] != OURS):
        print(f"  {OURS} / {other}: {best(OURS) / best(other):.2f} of its CPU a row (best turns)")


def snapshot(source, a, log):
    heading(f"{source.title}, W1: the snapshot of {a.rows:,} rows")
    python, out = f"{READERS}/{'deltalake' if source.kind == 'postgres' else 'connectorx'}/bin/python", os.path.join(a.dir, "script")
    figures = []
    for r in range(1, a.rounds + 1):
        name = f"w1_{r}"
        with Watch(source):
            figures.append(measured(source, OURS, r, a.rows, Lakeward(source, a.dir, name).until_current(), log))
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
    command = Lakeward(source, a.dir, name, merge).until_current()
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
    compare = [f"{READERS}/duckdb/bin/python", os.path.join(HERE, "..", "tests", "demo", "compare.py")]
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
    ap.add_argument("--only", choices=["w1", "w3", *PARTS])
    ap.add_argument("--merge", choices=["rewrite", "deletion-vectors"])
    ap.add_argument("--minutes", type=float)
    ap.add_argument("--rate", type=int, default=1000)
    ap.add_argument("--verify", action="store_true")
    ap.add_argument("--case", choices=cases(ROWS))
    ap.add_argument("--png")
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
    a.minutes = a.minutes or (2 if a.only == "fresh" else 15)
    a.dir = os.path.join(a.dir, a.source)
    os.makedirs(a.dir)
    print(f"\n{os.cpu_count()} x {model}; load {os.getloadavg()[0]:.2f}; {source.title} {source.version()}")
    if a.only != "memory":  # It has tables of its own.
        print(f"making {a.rows:,} rows", flush=True)
        source.make(a.rows)
    figures = {}
    with open(os.path.join(a.dir, "log"), "w") as log:
        if a.only in (None, "w1"):
            figures["w1"] = snapshot(source, a, log)
        if a.only in (None, "w3"):
            figures["w3"] = stream(source, a, log)
        if a.only in PARTS:
            figures[a.only] = PARTS[a.only](source, a, log)
            if a.verify and a.only != "memory":
                verify(source, a, a.only)
    if a.json:
        every = {}
        if os.path.exists(a.json):
            with open(a.json) as f:
                every = json.load(f)
        with open(a.json, "w") as f:
            json.dump({**every, a.source: {**every.get(a.source, {}), **figures}}, f, indent=1)
            f.write("\n")
    if not all(line["inside"] for line in figures.get("memory", [])):
        sys.exit("bench: more memory is resident than is promised")


if __name__ == "__main__":
    main()
