"""`lakeward verify`, again and again, while the source changes: it must find nothing, and costs what is
printed."""

import json
import os
import random
import sys
import threading
import time

from daemon import Lakeward
from measure import server_cpu

# So many changes are one transaction.
TOGETHER = 20
# For so long the load runs alone before each verification, to tell what it costs without one.
ALONE = 5


class Load(threading.Thread):
    """Changes rows at random, so many a second."""

    def __init__(self, source, rows, rate):
        super().__init__(daemon=True)
        self.source, self.rows, self.pause = source, rows, TOGETHER / rate
        self.ended, self.sent, self.random = threading.Event(), 0, random.Random(7)
        self.client = source.writer()

    def run(self):
        due = time.monotonic()
        while not self.ended.is_set():
            self.client.stdin.write(self.source.changes(self.rows, TOGETHER, self.random))
            self.client.stdin.flush()
            self.sent += TOGETHER
            due += self.pause
            time.sleep(max(0, due - time.monotonic()))

    def end(self):
        self.ended.set()
        self.join()
        self.client.stdin.close()
        if self.client.wait():
            sys.exit(f"bench: the load ended with {self.client.returncode}")


def verifying(source, a, log):
    """Verifies for `a.minutes`."""
    lakeward, figures = Lakeward(source, a.dir, "verify", "deletion-vectors"), []
    with lakeward.running(log):
        lakeward.settle()
        load = Load(source, a.rows, a.rate)

        def used():
            daemon, server = lakeward.used()["cpu"], server_cpu(source)
            return {"wall": time.monotonic(), "daemon": daemon, "server": server, "sent": load.sent}

        def spent(since, of):
            now = used()
            for key in now:
                of[key] += now[key] - since[key]
            return {key: now[key] - since[key] for key in now}

        load.start()
        alone, beside = dict.fromkeys(used(), 0), dict.fromkeys(used(), 0)
        print(f"\n{source.title}: verifying {a.rows:,} rows while {a.rate:,} a second change, for {a.minutes:g} min")
        print(f"{'#':>5}{'load':>7}{'wall s':>9}{'rows':>12}{'changes/s':>11}{'MB/M':>8}{'differ':>8}")
        end = time.monotonic() + a.minutes * 60
        while time.monotonic() < end or not figures:
            before = used()
            time.sleep(ALONE)
            spent(before, alone)
            before = used()
            code, found = lakeward.answer("verify", lakeward.name)
            took = spent(before, beside)
            if not found:
                sys.exit(f"bench: verify ended with {code} and said nothing")
            rows, read = (sum(t[k] for t in found.values()) for k in ("rows", "bytes"))
            figure = {
                "load": os.getloadavg()[0],
                "wall_s": took["wall"],
                "rows": rows,
                "changes_per_s": took["sent"] / took["wall"],
                "mb_per_million": read / rows,
                "differences": sum(t["missing"] + t["extra"] + t["changed"] for t in found.values()),
                "equal": code == 0,
            }
            figures.append(figure)
            print(
                f"{len(figures):>5}{figure['load']:>7.2f}{took['wall']:>9.1f}{rows:>12,}{figure['changes_per_s']:>11,.0f}"
                f"{figure['mb_per_million']:>8.0f}{figure['differences']:>8}",
                flush=True,
            )
            if code:
                print(json.dumps(found)[:4000])
        load.end()
    wrong = sum(not f["equal"] for f in figures)
    rows = sum(f["rows"] for f in figures)
    print(f"  {len(figures)} verifications of {rows:,} rows beside {load.sent:,} changes: {wrong} found a difference")
    # What the same time costs without a verification is taken off.
    cpu = {k: beside[k] - alone[k] / alone["wall"] * beside["wall"] for k in ("daemon", "server")}
    print(f"  beyond what the load alone takes, CPU s per million rows: {cpu['daemon'] / rows * 1e6:.2f}, of the server "
          f"{cpu['server'] / rows * 1e6:.2f} (by the load's {alone['wall']:.0f} s alone and {beside['wall']:.0f} s beside)")
    if wrong:
        sys.exit("bench: a verification found a difference where there is none")
    return {"verifications": figures, "cpu_s_per_million": cpu["daemon"] / rows * 1e6,
            "server_cpu_s_per_million": cpu["server"] / rows * 1e6}
