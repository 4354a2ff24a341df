"""The most memory that is resident, beside what is promised (docs/guarantees.md, P7)."""

import os
import shutil
import time

from cases import cases
from daemon import Lakeward
from measure import server_cpu, used

# lake.memory by default, what may come on top, and the part of the largest cell.
BUDGET, BESIDE, CELLS = 256 << 20, 150_000_000, 4


def bound(case):
    return BUDGET + BESIDE + CELLS * case.cell


def follow(source, lakeward, case, log):
    """Changes rows while the daemon follows; what that took."""
    parts = {}

    def look(metrics):
        for (name, labels), value in metrics.items():
            if name == "lakeward_memory_bytes":
                part = labels.split('part="')[1].rstrip('"')
                parts[part] = max(parts.get(part, 0), int(value))

    with lakeward.running(log):
        lakeward.settle(len(case.tables))
        load, server, began, before = os.getloadavg()[0], server_cpu(source), time.monotonic(), lakeward.used()
        case.change(source)
        lakeward.catch_up(look)
        wall, server, after = time.monotonic() - began, server_cpu(source) - server, lakeward.used()
        lakeward.settle(len(case.tables))
    return {
        "wall_s": wall,
        "cpu_s": after["cpu"] - before["cpu"],
        "server_cpu_s": server,
        "max_rss_mib": after["rss_peak"] / 2**20,
        "load": load,
        "parts": parts,
    }


def tell(what, figures, most):
    """A line; whether it is inside of what is promised."""
    inside = figures["max_rss_mib"] <= most / 2**20
    print(
        f"{what:<46}{figures['load']:>7.2f}{figures['wall_s']:>9.1f}{figures['cpu_s']:>8.1f}"
        f"{figures['server_cpu_s']:>8.1f}{figures['max_rss_mib']:>10.0f}{most / 2**20:>10.0f}"
        f"  {'inside' if inside else 'BEYOND'}",
        flush=True,
    )
    if not inside and "parts" in figures:
        parts = ", ".join(f"{part} {size / 2**20:.0f}" for part, size in figures["parts"].items())
        print(f"    of its budget, each part at its most, in MiB: {parts}", flush=True)
    return {"what": what, **figures, "bound_mib": most / 2**20, "inside": inside}


def memory(source, a, log):
    """In each case the rows that are there are read, and then some are changed."""
    print(f"\n{source.title}: resident at most, beside lake.memory + {BESIDE / 1e6:g} MB + {CELLS} x the largest cell")
    print(f"{'':<46}{'load':>7}{'wall s':>9}{'CPU s':>8}{'server':>8}{'most MiB':>10}{'promised':>10}", flush=True)
    figures = []
    for name, case in cases(a.rows).items():
        if a.case not in (None, name):
            continue
        case.make(source)
        source.tables = case.pattern
        lakeward = Lakeward(source, a.dir, f"memory_{name}", a.merge or "rewrite", case.tables)
        read = used(source, "its snapshot", lakeward.until_current(), log)
        figures.append(tell(f"{case.title}: the snapshot", read, bound(case)))
        figures.append(tell(f"{case.title}: changes", follow(source, lakeward, case, log), bound(case)))
        source.forget(lakeward.name)
        source.drop(case.tables)
        shutil.rmtree(lakeward.lake)
    return figures
