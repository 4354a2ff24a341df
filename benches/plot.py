"""Draws what benches/steady.py saw: plot.py FILE TITLE, the samples as JSON on standard input."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = [
    ("data files", "", [("files", 1, None)]),
    ("log of the table", "MiB", [("log_bytes", 2**20, None)]),
    ("folder of the table", "MiB", [("data_bytes", 2**20, None)]),
    ("resident memory", "MiB", [("rss", 2**20, None)]),
    ("seconds", "s", [("gap_s", 1, "longest between two commits"), ("lag_s", 1, "lag")]),
]

samples = json.load(sys.stdin)
minutes = [s["at_s"] / 60 for s in samples]
figure, axes = plt.subplots(len(PANELS), 1, figsize=(9, 2.1 * len(PANELS)), sharex=True, layout="constrained")
figure.suptitle(sys.argv[2])
for axis, (title, unit, lines) in zip(axes, PANELS):
    for key, scale, label in lines:
        axis.plot(minutes, [s[key] / scale for s in samples], linewidth=1.2, label=label)
    axis.set_title(title, loc="left", fontsize=9)
    axis.set_ylabel(unit)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    if lines[0][2]:
        axis.legend(fontsize=8, loc="upper right")
axes[-1].set_xlabel("minutes")
figure.savefig(sys.argv[1], dpi=110)
