"""What becomes of a table that changes for a while: its files, its log, the daemon's memory, and how fast it is
read in the end."""

import json
import os
import random
import subprocess
import time

from daemon import OURS, READERS, Lakeward, total
from measure import disk_waits, heading, measured

HERE = os.path.dirname(os.path.abspath(__file__))
# Seconds between two samples.
SAMPLE = 5
# So many samples are printed.
LINES = 30
INTERVAL = 1
# Replaced files are kept for so long, so that what is kept levels off while somebody watches.
RETENTION = "3m"
# What is wanted: time beside that of a new table, and what a commit may come late, in seconds.
SCAN, LOOKUP, LATE = 1.15, 1.5, 1
# Rows that are looked up.
KEYS = 5


class Folder:
    """A table's folder, as it grows."""

    def __init__(self, path):
        self.path, self.log = path, f"{path}/_delta_log"
        self.last = time.time()

    def commits(self):
        """When the file of each commit got its name, which is when readers see it."""
        with os.scandir(self.log) as files:
            return [f.stat().st_ctime for f in files if f.name.endswith(".json")]

    def size(self, path):
        """How many files are in a folder, and their bytes."""
        with os.scandir(path) as files:
            sizes = [f.stat().st_size for f in files if f.is_file()]
        return len(sizes), sum(sizes)

    def gap(self):
        """The longest time between two commits, of those since the last call and the one before them (at
        first, the beginning)."""
        times = [self.last, *sorted(at for at in self.commits() if at > self.last)]
        self.last = times[-1]
        return max((b - a for a, b in zip(times, times[1:])), default=0)

    def sample(self):
        (files, data), (entries, log) = self.size(self.path), self.size(self.log)
        return {"data_files": files, "data_bytes": data, "log_files": entries, "log_bytes": log, "gap_s": self.gap()}


def sampled(source, lakeward, a, merge):
    """Samples while rows change, and the longest time between two commits."""
    folder, samples = Folder(lakeward.folder(source.table)), []
    seconds = max(1, round(a.minutes * 60))
    print(f'\n{source.title}: {a.rate:,} of {a.rows:,} rows change a second, for {seconds} s; '
          f'flush_interval = "{INTERVAL}s", retention = "{RETENTION}", merge = "{merge}"')
    print(f"{'s':>6}{'load':>7}{'files':>7}{'log files':>11}{'log MiB':>9}{'folder MiB':>12}{'RSS MiB':>9}{'CPU s':>8}"
          f"{'gap s':>7}{'lag s':>7}{'staged':>8}{'disk s':>8}", flush=True)
    every, began, disk = max(1, seconds // SAMPLE // LINES), time.monotonic(), disk_waits() or 0
    for _ in lakeward.while_runs(source.at_rate(a.rows, a.rate, seconds), SAMPLE):
        metrics, used = lakeward.metrics(), lakeward.used()
        sample = {
            "at_s": time.monotonic() - began,
            "load": os.getloadavg()[0],
            "files": int(total(metrics, "lakeward_files")),
            "lag_s": total(metrics, "lakeward_lag_milliseconds") / 1000,
            "staged": int(total(metrics, "lakeward_staged_changes")),
            "rss": used["rss"],
            "cpu_s": used["cpu"],
            "disk_waits_s": (disk_waits() or 0) - disk,
            **folder.sample(),
        }
        disk += sample["disk_waits_s"]
        samples.append(sample)
        if len(samples) % every == 1 or every == 1:
            since = samples[-every:]
            gap, waits = max(s["gap_s"] for s in since), sum(s["disk_waits_s"] for s in since)
            print(
                f"{sample['at_s']:>6.0f}{sample['load']:>7.2f}{sample['files']:>7}{sample['log_files']:>11}"
                f"{sample['log_bytes'] / 2**20:>9.1f}{sample['data_bytes'] / 2**20:>12.0f}"
                f"{sample['rss'] / 2**20:>9.0f}{sample['cpu_s']:>8.1f}{gap:>7.2f}{sample['lag_s']:>7.2f}"
                f"{sample['staged']:>8,}{waits:>8.2f}",
                flush=True,
            )
    lakeward.catch_up()
    return samples, max(folder.gap(), *(s["gap_s"] for s in samples))


def read(a, table):
    """The table beside a new one of the same rows."""
    copy, script = os.path.join(a.dir, "copy"), os.path.join(HERE, "scans.py")

    def ask(reader, *words):
        command = [f"{READERS}/{reader}/bin/python", script, *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"    {reader} refuses: {(done.stderr.strip().splitlines() or ['it says nothing'])[-1][:300]}")
            return None
        return json.loads(done.stdout)

    copied = ask("deltalake", "copy", table, copy)
    if copied is None:
        return {}
    print(f"    the same rows written by delta-rs: {copied['files']} files, {copied['bytes'] / 2**20:,.0f} MiB")
    keys = [str(key) for key in random.Random(7).sample(range(1, a.rows + 1), KEYS)]
    found = {"copy": copied}
    for engine in ("duckdb", "polars"):
        times = ask(engine, engine, table, copy, *keys)
        if times is None:
            continue
        found[engine] = times
        for what, wanted, text in (("scan", SCAN, "all rows"), ("lookup", LOOKUP, "one row by its key")):
            ours, other = times[what]["table_s"], times[what]["copy_s"]
            print(f"    {engine}, {text}: {ours:.3f} s; of the new table {other:.3f} s; {ours / other:.2f} of it "
                  f"(wanted: {wanted:g})", flush=True)
    return found


def steady(source, a, log):
    merge = a.merge or "deletion-vectors"
    lakeward = Lakeward(source, a.dir, "steady", merge, flush_interval=f"{INTERVAL}s", retention=RETENTION)
    heading(f"{source.title}: the snapshot before it (not a figure)")
    measured(source, OURS, 0, a.rows, lakeward.until_current(), log)
    with lakeward.running(log):
        lakeward.settle()
        samples, gap = sampled(source, lakeward, a, merge)
        peak = lakeward.used()["rss_peak"]
    table = lakeward.tables()[source.table]
    print(f"    longest time between two commits: {gap:.2f} s (wanted: {INTERVAL + LATE:g} s)")
    print(f"    RSS at most: {peak / 2**20:.0f} MiB")
    print(f"    in the end: {table['rows']:,} rows in {table['files']} files, {table['bytes'] / 2**20:,.0f} MiB, "
          f"version {table['version']}", flush=True)
    figures = {"merge": merge, "samples": samples, "longest_gap_s": gap, "rss_peak": peak, "table": table}
    if a.png:
        draw = [f"{READERS}/plot/bin/python", os.path.join(HERE, "plot.py"), a.png]
        title = f'{a.rate:,} of {a.rows:,} rows change a second; merge = "{merge}"'
        subprocess.run([*draw, title], check=True, input=json.dumps(samples), text=True)
    return {**figures, **read(a, lakeward.folder(source.table))}
