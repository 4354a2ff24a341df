"""Wait for the next epoch file of a source, kill -9 the daemon at that instant, and tell where it was.

    kill_in_flush.py PID LAKE SOURCE SECONDS

A flush first creates its epoch file and then commits each table, and the source is told
last. So right after the file appears the daemon is in the middle of the flush. Exits 0 when
a table's commit was still open, 3 when all were done already, 1 when no epoch came.
The demo's names are plain, so that a table's folder is called as the table.
"""

import json
import os
import re
import signal
import sys
import time


def newest_epoch(folder):
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return -1
    return max((int(m[1]) for n in names if (m := re.fullmatch(r"(\d+)\.json", n))), default=-1)


def committed(table, app):
    """The newest epoch among the table's commits, the newest commit first."""
    log = os.path.join(table, "_delta_log")
    names = os.listdir(log) if os.path.isdir(log) else []
    for name in sorted((n for n in names if re.fullmatch(r"\d{20}\.json", n)), reverse=True):
        with open(os.path.join(log, name)) as f:
            for line in f:
                txn = json.loads(line).get("txn")
                if txn and txn["appId"] == app:
                    return txn["version"]
    return None


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def main():
    pid, lake, source, seconds = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
    epochs = os.path.join(lake, "_lakeward", source, "epochs")
    before, end = newest_epoch(epochs), time.monotonic() + seconds
    while (epoch := newest_epoch(epochs)) == before:
        if time.monotonic() > end:
            sys.exit(f"no new epoch within {seconds:.0f} s")
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)
    while not gone(pid):
        time.sleep(0.001)
    epoch = newest_epoch(epochs)
    with open(os.path.join(epochs, next(n for n in os.listdir(epochs) if re.fullmatch(rf"0*{epoch}\.json", n)))) as f:
        named = json.load(f)["commits"]
    done, missing = [], []
    for schema, table in sorted(name.split(".", 1) for name in named):
        at = committed(os.path.join(lake, source, schema, table), f"lakeward/{source}")
        (done if at == epoch else missing).append(f"{table} at {at}")
    print(f"{source}'s epoch file {epoch} was written; its commits were done in {len(done)} of {len(done) + len(missing)} tables", end="")
    print(f" ({', '.join(missing)})" if missing else "")
    sys.exit(0 if missing else 3)


if __name__ == "__main__":
    main()
