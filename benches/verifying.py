"""`lakeward verify`, again and again, while the source changes: it must find nothing, and costs what is
printed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

# So many changes are one transaction.
TOGETHER = 20
# For so long the load runs alone, to tell what it costs without a verification.
ALONE = 30
TICK = os.sysconf("SC_CLK_TCK")


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


def cpu(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def answer(lakeward, config, *words):
    """What a command says as JSON, and its exit status."""
    done = subprocess.run([lakeward, *words, "--json", "--config", config], stdout=subprocess.PIPE, text=True)
    return done.returncode, json.loads(done.stdout or "{}")


def settle(lakeward, config, daemon):
    while True:
        if daemon.poll() is not None:
            sys.exit(f"bench: the daemon ended with {daemon.returncode}")
        tables = [t for s in answer(lakeward, config, "status")[1].values() for t in s["tables"].values()]
        if tables and all(t["state"] == "live" for t in tables):
            return
        time.sleep(1)


def verifying(source, command, server_cpu, a, log):
    """Verifies for `a.minutes`; `command` runs Lakeward until it is current, in its configuration."""
    lakeward, config = command[0], command[command.index("--config") + 1]
    name = os.path.splitext(os.path.basename(config))[0]
    daemon = subprocess.Popen([lakeward, "run", "--config", config], stdin=subprocess.DEVNULL, stderr=log)
    load, figures = None, []
    try:
        settle(lakeward, config, daemon)
        load = Load(source, a.rows, a.rate)

        def used():
            return {"wall": time.monotonic(), "daemon": cpu(daemon.pid), "server": server_cpu(source), "sent": load.sent}

        load.start()
        before = used()
        time.sleep(ALONE)
        now = used()
        alone = {k: (now[k] - before[k]) / (now["wall"] - before["wall"]) for k in now}
        print(f"\n{source.title}: verifying {a.rows:,} rows while {a.rate:,} a second change, for {a.minutes:g} min")
        print(f"{'#':>5}{'load':>7}{'wall s':>9}{'rows':>12}{'changes/s':>11}{'CPU s/M':>10}{'server':>10}{'MB/M':>8}{'differ':>8}")
        end = time.monotonic() + a.minutes * 60
        while time.monotonic() < end or not figures:
            before = used()
            code, found = answer(lakeward, config, "verify", name)
            now = used()
            if not found:
                sys.exit(f"bench: verify ended with {code} and said nothing")
            took = now["wall"] - before["wall"]
            rows, read = (sum(t[k] for t in found.values()) for k in ("rows", "bytes"))
            figure = {
                "load": os.getloadavg()[0],
                "wall_s": took,
                "rows": rows,
                "changes_per_s": (now["sent"] - before["sent"]) / took,
                "cpu_s_per_million": (now["daemon"] - before["daemon"] - alone["daemon"] * took) / rows * 1e6,
                "server_cpu_s_per_million": (now["server"] - before["server"] - alone["server"] * took) / rows * 1e6,
                "mb_per_million": read / rows,
                "differences": sum(t["missing"] + t["extra"] + t["changed"] for t in found.values()),
                "equal": code == 0,
            }
            figures.append(figure)
            print(
                f"{len(figures):>5}{figure['load']:>7.2f}{took:>9.1f}{rows:>12,}{figure['changes_per_s']:>11,.0f}"
                f"{figure['cpu_s_per_million']:>10.2f}{figure['server_cpu_s_per_million']:>10.2f}"
                f"{figure['mb_per_million']:>8.0f}{figure['differences']:>8}",
                flush=True,
            )
            if code:
                print(json.dumps(found)[:4000])
        load.end()
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
    wrong = sum(not f["equal"] for f in figures)
    rows = sum(f["rows"] for f in figures)
    print(f"  {len(figures)} verifications of {rows:,} rows beside {load.sent:,} changes: {wrong} found a difference")
    if wrong:
        sys.exit("bench: a verification found a difference where there is none")
    return figures
