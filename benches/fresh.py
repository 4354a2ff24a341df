"""How soon a change can be seen in the lake, and what it costs to be so soon."""

import json
import os
import subprocess
import time

from daemon import OURS, READERS, Lakeward
from measure import disk_waits, heading, measured, server_cpu

HERE = os.path.dirname(os.path.abspath(__file__))
# What is wanted, in seconds: half of the changes, and all but one in a hundred.
MEDIAN, P99 = 0.8, 2.0


def version(log):
    """The newest version of a table."""
    return max(int(name[:20]) for name in os.listdir(log) if name.endswith(".json"))


def fresh(source, a, log):
    merge, seconds = a.merge or "deletion-vectors", max(1, round(a.minutes * 60))
    lakeward = Lakeward(source, a.dir, "fresh", merge, flush_interval="500ms")
    heading(f"{source.title}: the snapshot before it (not a figure)")
    measured(source, OURS, 0, a.rows, lakeward.until_current(), log)
    table = lakeward.folder(source.table)
    with lakeward.running(log):
        lakeward.settle()
        changes = a.rate // 20 * 20 * seconds
        print(f'\n{source.title}: {a.rate:,} of {a.rows:,} rows change a second, for {seconds} s; '
              f'flush_interval = "500ms", merge = "{merge}"', flush=True)
        first, load = version(f"{table}/_delta_log"), os.getloadavg()[0]
        before, server, disk, began = lakeward.used(), server_cpu(source), disk_waits(), time.time()
        for _ in lakeward.while_runs(source.at_rate(a.rows, a.rate, seconds), 1):
            pass
        wall = time.time() - began
        lakeward.catch_up()
        after = lakeward.used()
        load, server = (load + os.getloadavg()[0]) / 2, server_cpu(source) - server
        disk = None if disk is None else disk_waits() - disk
    # Only now, so that it disturbs nothing.
    look = [f"{READERS}/deltalake/bin/python", os.path.join(HERE, "visible.py"), table, str(first), str(int(began * 1e6))]
    seen = json.loads(subprocess.run(look, check=True, stdout=subprocess.PIPE, text=True).stdout)
    figures = {
        **seen,
        "load": load,
        "disk_waits_s": disk,
        "changes": changes,
        "changes_per_s": changes / wall,
        "cpu_s_per_million": (after["cpu"] - before["cpu"]) / changes * 1e6,
        "server_cpu_s_per_million": server / changes * 1e6,
        "written_per_change": (after["written"] - before["written"]) / changes,
        "added_per_change": (seen["data_bytes"] + seen["log_bytes"]) / changes,
        "max_rss_mib": after["rss_peak"] / 2**20,
    }
    lines = [
        ("changes, a second", f"{changes:,}, {figures['changes_per_s']:,.0f} (load {load:.2f})"),
        ("rows seen, commits", f"{seen['rows']:,}, {seen['flushes']:,}"),
        ("seen after: median", f"{seen['median_s']:.2f} s (wanted: {MEDIAN:g} s)"),
        ("seen after: 99 of 100", f"{seen['p99_s']:.2f} s (wanted: {P99:g} s)"),
        ("seen after: the last", f"{seen['max_s']:.2f} s"),
        ("longest time between two commits", f"{seen['longest_gap_s']:.2f} s; between two changes "
                                             f"{seen['longest_pause_s']:.2f} s"),
        ("some process waited for a disk", "not told" if disk is None else f"{disk:.1f} s"),
        ("CPU a million changes", f"{figures['cpu_s_per_million']:.1f} s; of the server "
                                  f"{figures['server_cpu_s_per_million']:.1f} s"),
        ("written a change", f"{figures['written_per_change']:,.0f} bytes, all that the daemon wrote"),
        ("added to the table a change", f"{figures['added_per_change']:,.0f} bytes, with its log; "
                                        f"{seen['rows_again'] / changes:.1f} older rows went along"),
        ("RSS at most", f"{figures['max_rss_mib']:.0f} MiB"),
    ]
    for what, figure in lines:
        print(f"    {what:<38}{figure}")
    return figures
